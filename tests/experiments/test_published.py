"""The published procedure and its faults: each switch does what it says, and nothing else."""

import copy
import math

import pytest
import torch
from helpers import LayerNormModel, pictures, seeded, snapshot, tiny_model
from torch import nn
from torch.nn.functional import avg_pool2d

from tta_iqa_lib.adaptation import Batch, batch_moments, batchnorm_layers
from tta_iqa_lib.adaptation.adapter import Adapter
from tta_iqa_lib.experiments import published
from tta_iqa_lib.experiments.published import FAULTS, Published, box_blur
from tta_iqa_lib.imaging.scenes import photograph
from tta_iqa_lib.models.training import remember_source


def model_of(**about):
    """A tiny model that remembers its source."""
    model = tiny_model(**about)
    remember_source(model, pictures(40, seed=11))
    return model


def plain(model, images) -> torch.Tensor:
    with torch.no_grad():
        return model(images)


def after_adapting(method: Published, batch, contrast: bool = True):
    """The copy that `predict` would score a first batch with, and the batch's distorted copies."""
    model = copy.deepcopy(method.model).eval().requires_grad_(False)
    layers = batchnorm_layers(model)
    params = [p.requires_grad_(method.gradients) for layer in layers.values() for p in (layer.weight, layer.bias)]
    mild, severe = (c.detach() for c in method._copies(model, batch))
    method._adapt(model, layers, batch, torch.optim.Adam(params, method.lr), contrast)
    return model, mild, severe


FAST = {"lr": 0.02}  # so that steps are seen in the scores


@pytest.mark.parametrize("faults", [(), tuple(FAULTS)], ids=["none", "all"])
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_the_users_model_is_never_changed(faults, mode):
    """Nor does its mode make a difference."""
    model, images = model_of(), pictures(8)
    expected = Published(model, faults).predict(images, 4)
    before = snapshot(model.train(mode))
    found = Published(model, faults).predict(images, 4)
    assert snapshot(model) == before
    assert torch.equal(found, expected) and not found.requires_grad


def test_a_model_without_batchnorm_adapts_its_other_normalisation_layers():
    model, images = seeded(lambda: LayerNormModel(nn.LayerNorm(6))), pictures(8)
    assert torch.equal(Published(model, gradients=False).predict(images, 4), plain(model, images))
    batches, adapted = images.split(4), Published(model, lr=0.02).predict(images, 4)
    assert (adapted - plain(model, images)).abs().min() > 1e-4
    assert torch.equal(Published(model, lr=0.02).predict(batches[1], 4), adapted[4:])
    with pytest.raises(ValueError, match="nothing to adapt"):  # nothing else is adapted in their place
        Published(LayerNormModel(nn.Identity())).predict(images, 4)


@pytest.mark.parametrize(
    "faults", [(), ("no-zero-grad",), tuple(name for name in FAULTS if name != "no-zero-grad")], ids=str
)
def test_only_the_gradients_that_are_never_reset_outlive_a_batch(faults):
    """A, B, A in one stream: the second A gets the first one's scores, unless gradients and Adam's memory survive."""
    a, b = pictures(5), pictures(5, seed=1)
    first, _, third = Published(model_of(), faults, **FAST).predict(torch.cat([a, b, a]), 5).split(5)
    if "no-zero-grad" in faults:
        assert not torch.allclose(first, third, rtol=0, atol=1e-4)
    else:
        assert torch.equal(first, third)


def test_gradients_that_are_never_reset_add_up_over_the_steps():
    """Two steps with Adam: the second takes g₁ + g₂. Its first step is the plain one."""
    model, images = model_of(), pictures(5)
    one, two = (
        [Published(model, f, steps=n, **FAST).predict(images, 5) for f in ((), ("no-zero-grad",))] for n in (1, 2)
    )
    assert torch.equal(*one)
    assert not torch.allclose(*two, rtol=0, atol=1e-5)


@pytest.mark.parametrize("contrast", [True, False])
def test_three_steps_mix_source_batch_and_copies(contrast):
    """Momentum .1, passes in the order mild, severe, clean, clean: .9¹² = 28 % source, 40 % batch, 32 % copies.

    Without the contrast the second clean pass is missing. Running means add up so in the first layer, whose inputs no step
    changes; and running variances, of PyTorch's unbiased kind, likewise.
    """
    model, batch = model_of(), pictures(6)
    moved, mild, severe = after_adapting(Published(model, **FAST), batch, contrast)
    first, found = (next(iter(batchnorm_layers(m).values())) for m in (model, moved))
    passes = ["mild", "severe", "clean", "clean"][: 4 if contrast else 3] * 3
    weights = {"source": 0.9 ** len(passes), "mild": 0.0, "severe": 0.0, "clean": 0.0}
    for k, name in enumerate(reversed(passes)):
        weights[name] += 0.1 * 0.9**k
    assert sum(weights.values()) == pytest.approx(1)
    if contrast:
        shares = weights["source"], weights["clean"], weights["mild"] + weights["severe"]
        assert [round(share, 2) for share in shares] == [0.28, 0.4, 0.32]
    mean, var = weights["source"] * first.running_mean, weights["source"] * first.running_var
    for name, images in (("mild", mild), ("severe", severe), ("clean", batch)):
        inputs = model.features[0]((images - model.mean) / model.std).detach()
        count = inputs.numel() / inputs.shape[1]
        own = batch_moments(inputs)
        mean = mean + weights[name] * own.mean[0]
        var = var + weights[name] * own.var[0] * count / (count - 1)
    assert torch.allclose(found.running_mean, mean, rtol=0, atol=1e-5)
    assert torch.allclose(found.running_var, var, rtol=0, atol=1e-5)
    assert not torch.allclose(found.running_mean, first.running_mean, rtol=0, atol=1e-3)


def test_the_scores_are_those_of_the_adapted_copy_in_evaluation_mode():
    model, batch = model_of(), pictures(6)
    moved, *_ = after_adapting(Published(model, **FAST), batch)
    found = Published(model, **FAST).predict(batch, 6)
    assert torch.allclose(found, plain(moved.eval(), batch), rtol=0, atol=1e-6)
    assert not torch.allclose(found, plain(moved.train(), batch), rtol=0, atol=1e-3)


def test_the_control_moves_no_weights_and_yet_differs_from_the_source():
    """It is the procedure at a learning rate of zero: the same passes, the same running statistics."""
    model, batch = model_of(), pictures(6)
    control = Published(model, gradients=False, **FAST)
    moved, *_ = after_adapting(control, batch)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), moved.parameters(), strict=True))
    scores = control.predict(batch, 6)
    assert not torch.allclose(scores, plain(model, batch), rtol=0, atol=1e-3)
    assert torch.allclose(scores, Published(model, lr=0.0).predict(batch, 6), rtol=0, atol=1e-6)
    assert not torch.allclose(scores, Published(model, **FAST).predict(batch, 6), rtol=0, atol=1e-4)


def test_steps_move_gamma_and_beta_and_nothing_else():
    model, batch = model_of(), pictures(6)
    moved, *_ = after_adapting(Published(model, **FAST), batch)
    own = {f"{name}.{key}" for name in batchnorm_layers(model) for key in ("weight", "bias")}
    changed = {n for n, p in moved.named_parameters() if not torch.equal(p, model.get_parameter(n))}
    assert changed and changed <= own and len(changed) > len(own) / 2


def test_a_model_where_lower_is_better_is_the_negative_of_one_where_higher_is():
    """Whatever the direction of the scores, the same steps are taken."""
    higher, lower = model_of(), model_of(higher_is_better=False)
    with torch.no_grad():
        lower.regressor.weight.neg_()
        lower.regressor.bias.neg_()
    images = pictures(5)
    up, down = (Published(m, **FAST).predict(images, 5) for m in (higher, lower))
    assert torch.allclose(up, -down, rtol=0, atol=1e-6)


# Faults one by one


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_changes_the_scores(name):
    """In a stream of 4, 3, 4 images, the last of which shows also what outlives a batch."""
    model, images = model_of(), pictures(11)
    right, wrong = (Published(model, f, **FAST).predict(images, 4)[7:] for f in ((), (name,)))
    assert not torch.equal(right, wrong)


def test_the_two_box_blurs_are_the_same():
    """σ 12 and 50 in five taps: a twentieth of a grey level apart at most, on average; both nearly the mean of 5 × 5 pixels."""
    image = photograph("cat")[None, :, :160, :160]
    mild, severe = box_blur(image, 12), box_blur(image, 50)
    assert (mild - severe).abs().mean() < 0.05 / 255 and (mild - severe).abs().max() < 0.2 / 255
    assert (image - mild).abs().max() > 20 / 255
    box = avg_pool2d(image, 5, 1)
    assert (severe[..., 2:-2, 2:-2] - box).abs().max() < 0.01 / 255


def test_box_blur_is_a_gaussian_by_hand():
    """Weights e^{−d²/2σ²} of the five taps along each axis; flat images and their edges stay."""
    image = torch.zeros(1, 3, 9, 9)
    image[..., 4, 4] = 1
    taps = [math.exp(-(d**2) / 2) for d in (-2, -1, 0, 1, 2)]
    expected = torch.tensor([[a * b for b in taps] for a in taps]) / sum(taps) ** 2
    blurred = box_blur(image, 1.0)
    assert torch.allclose(blurred[0, 1, 2:7, 2:7], expected, atol=1e-6)
    assert blurred[0, 1].sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(box_blur(torch.full((2, 3, 9, 9), 0.4), 12), torch.tensor(0.4), atol=1e-6)


@pytest.mark.parametrize(("faults", "second"), [((), (0.7, 0.3)), (("box-blur",), (0.85, 0.5))], ids=str)
def test_copies_are_of_the_kind_whose_scores_differ_most_image_by_image(faults, second, monkeypatch):
    """Stand-ins that darken by known shares, and brightness as the score: gaps .35 m (JPEG), .4 m (blur), .0039 (noise).

    The two boxes score alike, and are never chosen.
    """
    monkeypatch.setattr(published, "jpeg_compress", lambda x, quality: quality.view(-1, 1, 1, 1) / 100 * x)
    monkeypatch.setattr(published, "distort", lambda x, kind, severity: (1 - severity) * x)
    monkeypatch.setattr(published, "gaussian_noise", lambda x, s, generator: x + (0.2 * s**2).view(-1, 1, 1, 1))
    images = torch.tensor([0.005, 0.5]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    found = Published(model_of(), faults)._copies(lambda x: x.mean((1, 2, 3)), images)
    for copies, noise, share in zip(found, (1e-5**0.5, 5e-5**0.5), second, strict=True):
        assert copies.shape == images.shape
        assert torch.allclose(copies[0], images[0] + noise, atol=1e-6)
        assert torch.allclose(copies[1], share * images[1], atol=1e-6)


@pytest.mark.parametrize("faults", [(), ("box-blur",)], ids=str)
def test_the_fault_puts_the_two_boxes_in_the_place_of_two_gaussian_blurs(faults, monkeypatch):
    """With JPEG and noise made harmless, blur is what changes a score."""
    monkeypatch.setattr(published, "jpeg_compress", lambda x, quality: x)
    monkeypatch.setattr(published, "gaussian_noise", lambda x, s, generator: x)
    images = pictures(3)
    found = Published(model_of(), faults)._copies(lambda x: x.var((1, 2, 3)), images)
    gaussian = [published.distort(images, "blur", severity) for severity in (0.3, 0.7)]
    for copies, expected in zip(
        found, [box_blur(images, 12), box_blur(images, 50)] if faults else gaussian, strict=True
    ):
        assert torch.equal(copies, expected)


def test_noise_copies_have_the_published_variances(monkeypatch):
    images = torch.full((2, 3, 64, 64), 0.5)
    mild, severe = Published(model_of())._copies(lambda x: x.var((1, 2, 3)), images)
    assert mild.var().item() == pytest.approx(1e-5, rel=0.05)
    assert severe.var().item() == pytest.approx(5e-5, rel=0.05)


def test_the_seed_decides_the_copies():
    model, images = model_of(), torch.full((2, 3, 64, 64), 0.5)
    one, again, other = (Published(model, seed=s)._copies(lambda x: x.var((1, 2, 3)), images)[0] for s in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_one_batch_of_three_turns_the_contrast_off_for_good():
    """4, 3 and 4 images: with the fault the last batch is adapted to as if there were no contrastive loss."""
    model, images = model_of(), pictures(11)
    last = images[7:]
    rank_only, both = (plain(after_adapting(Published(model, **FAST), last, c)[0].eval(), last) for c in (False, True))
    right, wrong = (Published(model, f, **FAST).predict(images, 4) for f in ((), ("gc-off",)))
    assert torch.allclose(wrong[7:], rank_only, rtol=0, atol=1e-6)
    assert torch.allclose(right[7:], both, rtol=0, atol=1e-6)
    assert not torch.allclose(rank_only, both, rtol=0, atol=1e-4)
    assert torch.equal(right[:7], wrong[:7])  # before it and in it, nothing is lost


def test_the_short_end_of_a_data_set_before_matters_only_to_what_outlives_a_batch():
    """With `before`, three images are adapted to first and not scored: it turns the contrast off, and else changes nothing."""
    model, images = model_of(), pictures(8)
    right, wrong = (Published(model, f, **FAST).predict(images, 4) for f in ((), ("gc-off",)))
    assert torch.equal(right, wrong)  # no batch of this stream is small
    assert torch.equal(Published(model, before=3, **FAST).predict(images, 4), right)
    found = Published(model, ("gc-off",), before=3, **FAST).predict(images, 4)
    first = after_adapting(Published(model, **FAST), images[:4], contrast=False)[0].eval()
    assert len(found) == 8 and torch.allclose(found[:4], plain(first, images[:4]), rtol=0, atol=1e-6)
    assert not torch.allclose(found, right, rtol=0, atol=1e-4)


def test_prediction_in_training_mode_uses_the_batchs_own_statistics():
    """Where no weight moves, that is the rule `Batch`."""
    model, batch = model_of(), pictures(6)
    found = Published(model, ("train-mode",), gradients=False).predict(batch, 6)
    assert torch.allclose(found, Adapter(model, [], Batch())(batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("faults", "form"), [((), "mean-log"), (("log-mean",), "log-mean"), (tuple(FAULTS), "log-mean")]
)
def test_the_contrast_takes_the_form_it_says(faults, form, monkeypatch):
    seen, true = [], published.group_contrastive_loss

    def spy(features, pseudo, form):
        seen.append(form)
        return true(features, pseudo, form=form)

    monkeypatch.setattr(published, "group_contrastive_loss", spy)
    Published(model_of(), faults).predict(pictures(5), 5)
    assert seen == [form] * 3


def test_an_unknown_fault_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="no fault 'blur'; there are no-zero-grad, box-blur"):
        Published(model_of(), ("box-blur", "blur"))


def test_faults_may_come_from_any_iterable():
    model, images = model_of(), pictures(4)
    found = Published(model, iter(["train-mode"])).predict(images, 4)
    assert torch.equal(found, Published(model, ("train-mode",)).predict(images, 4))


@pytest.mark.parametrize("guard", [
    torch.no_grad,
    torch.inference_mode,
])  # fmt: skip
def test_the_callers_gradient_mode_makes_no_difference(guard):
    model, images = model_of(), pictures(4)
    expected = Published(model, **FAST).predict(images, 4)
    with guard():
        assert torch.equal(Published(model, **FAST).predict(images.clone(), 4), expected)
