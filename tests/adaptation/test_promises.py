"""What the loop promises to whoever uses it: bad input is named, nothing is done in silence, nobody else is disturbed."""

import inspect
import threading

import pytest
import torch
from helpers import pictures, seeded, snapshot, tiny_mixed, tiny_model
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Adapter, Batch, Blend, Ema, LateNormAffine, Source, State, adapt_batch, norm_affine
from tta_iqa_lib.models.quality import ScoringModel

METHOD = (tta.RelativeRank(), tta.GroupContrastive())


def mean_score(context) -> torch.Tensor:
    return -context.scores["clean"].mean()


# Input


@pytest.mark.parametrize("change", [lambda x: x * 255, lambda x: x * 2 - 1, lambda x: (x - 0.45) / 0.225])
def test_values_outside_zero_to_one_are_refused(change):
    """0 … 255, −1 … 1 and normalised images were scored without a word."""
    with pytest.raises(ValueError, match=r"expected RGB in \[0, 1\]; got values from"):
        Adapter(tiny_model())(change(pictures(4)))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_images_of_another_floating_type_are_computed_in_the_models(kind):
    adapter, images = Adapter(tiny_model(), METHOD, Batch()), pictures(4).to(kind)
    assert torch.equal(adapter(images), adapter(images.float())) and adapter(images).dtype == torch.float32
    assert torch.equal(adapter.predict(images, 4, shuffle=False), adapter(images))


def test_images_on_another_device_than_the_model_are_refused():
    model = tiny_model()
    model.regressor.to("meta")
    model.features.to("meta")
    with pytest.raises(ValueError, match=r"the images are on cpu, the model on meta"):
        Adapter(model, statistics=Batch())(pictures(4))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_without_three_channels_are_refused(channels):
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        Adapter(tiny_model())(torch.rand(4, channels, 32, 32))


@pytest.mark.parametrize("episodes", [0, 3, -1])
def test_images_that_cannot_be_cut_into_episodes_are_refused(episodes):
    with pytest.raises(ValueError, match=r"8 images cannot be cut into|episodes must be a whole number of at least 1"):
        adapt_batch(tiny_model(), State(), pictures(8), Adapter(tiny_model(), statistics=Batch()).recipe, episodes)


def test_a_state_that_is_carried_on_goes_into_one_episode():
    model, recipe = tiny_model(), Adapter(tiny_model(), statistics=Ema(0.5)).recipe
    _, state = adapt_batch(model, State(), pictures(8), recipe)
    with pytest.raises(ValueError, match="episodes=2"):
        adapt_batch(model, state, pictures(8), recipe, 2)


def test_a_loader_without_batches_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="the loader gave no batch"):
        Adapter(tiny_model()).predict([])


def test_predict_keeps_the_crops_of_one_picture_together():
    """A shuffle of rows used to tear them apart."""
    model, images = tiny_model(), pictures(24)
    adapter, seen = Adapter(model, statistics=Batch(), crops_per_image=4, seed=1), []
    run = adapter._one
    adapter._one = lambda rows: seen.append(rows) or run(rows)
    adapter.predict(images, batch_size=8)
    assert [len(rows) for rows in seen] == [8, 8, 8]
    firsts = {image.numpy().tobytes(): i for i, image in enumerate(images)}
    for rows in seen:
        places = [firsts[row.numpy().tobytes()] for row in rows]
        assert all(places[i + j] == places[i] + j and places[i] % 4 == 0 for i in (0, 4) for j in range(4))
    with pytest.raises(ValueError, match="22 rows are no whole number of pictures of 4 crops"):
        adapter.predict(images[:22])


# Nothing in silence


class ByHand(nn.Module):
    """Normalises with its layer's buffers itself, where no rule reaches."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3, 4), nn.BatchNorm2d(6), nn.Linear(6, 1)

    def forward(self, x):
        mean, var = (moment.view(-1, 1, 1) for moment in (self.norm.running_mean, self.norm.running_var))
        return self.head(((self.conv(x) - mean) / var.sqrt()).relu().mean((2, 3)))


def test_a_module_that_normalises_by_hand_is_reported():
    model = tta.wrap_model(seeded(ByHand).eval(), features="head")
    result = Adapter(model, statistics=Batch()).run(pictures(4))
    assert "no BatchNorm layer ran" in result.skipped["statistics"]


def test_a_forward_pass_without_gradients_is_reported():
    class NoGrad(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny_mixed()

        @torch.no_grad()
        def forward(self, x):
            return self.net(x)

    result = Adapter(tta.wrap_model(NoGrad().eval(), features="net.5"), [mean_score], Source()).run(pictures(4))
    assert "no_grad" in result.skipped["losses"] and torch.equal(result.scores, result.source_scores)


def test_a_misspelt_parameter_is_reported():
    model = tiny_model()
    result = Adapter(model, [mean_score], Source(), params=lambda m: {"regressor.bais": m.regressor.bias}).run(
        pictures(4)
    )
    assert "'regressor.bais'" in result.skipped["params"] and torch.equal(result.scores, result.source_scores)
    both = Adapter(
        model,
        [mean_score],
        Source(),
        lr=0.1,
        params=lambda m: {"bais": m.regressor.bias, "regressor.bias": m.regressor.bias},
    ).run(pictures(4))
    assert "'bais'" in both.skipped["params"] and not torch.equal(both.scores, both.source_scores)


@pytest.mark.parametrize("losses", [METHOD, (mean_score,)], ids=["method", "mean"])
def test_one_bad_episode_is_undone_and_the_others_go_on(losses):
    """A loss that explodes for one of three episodes: its parameters stay, the others are as if it were not there."""
    model, images = tiny_model(), pictures(12)
    images[4:8] *= 0.5
    marked = images[4:8].mean()

    def explodes(context):
        own = context.images["clean"].mean()
        return context.scores["clean"].mean() * (torch.nan if torch.isclose(own, marked) else 0.0)

    groups = [0] * 4 + [1] * 4 + [2] * 4
    found = Adapter(model, [*losses, explodes], Blend(0.5), lr=0.01, episodes_per_pass=3).run(images, groups)
    plain = Adapter(model, losses, Blend(0.5), lr=0.01, episodes_per_pass=3).run(images, groups)
    good = torch.tensor([True] * 4 + [False] * 4 + [True] * 4)
    assert torch.allclose(found.scores[good], plain.scores[good], atol=1e-5)
    assert torch.allclose(found.scores[~good], plain.initial_scores[~good], atol=1e-5)
    assert list(found.skipped) == ["1: step"] and "not finite at step 1" in found.skipped["1: step"]


def test_a_stream_stays_finite_after_a_bad_batch():
    model, calls = tiny_model(), []

    def sometimes(context):
        calls.append(1)
        return context.scores["clean"].mean() * (torch.inf if 3 < len(calls) <= 6 else 1.0)

    adapter = Adapter(model, [sometimes], Ema(0.3), lr=0.01)
    with adapter.online():
        results = [adapter.run(pictures(5, seed=seed)) for seed in range(4)]
    assert all(result.scores.isfinite().all() for result in results)
    assert ["step" in result.skipped for result in results] == [False, True, False, False]


def test_scores_that_are_not_finite_are_the_sources_and_the_state_stays():
    """A layer that overflows under the batch's own moments: the variance of equal images is zero."""

    class Fragile(ScoringModel):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, images, with_features=False):
            z = self.norm(images).mean((2, 3))
            scores = 1 / z.abs().sum(1)  # infinite where all is at its mean
            return (scores, z) if with_features else scores

    model, images = Fragile().eval(), torch.full((4, 3, 8, 8), 0.5)
    recipe = Adapter(model, statistics=Batch()).recipe
    (result,), state = adapt_batch(model, State(), images, recipe)
    assert result.decision == "source" and torch.equal(result.scores, result.source_scores)
    assert "not finite" in result.skipped["scores"] and state == State()
    together, _ = adapt_batch(model, State(), torch.cat([images, pictures(4, 8)]), recipe, 2)
    assert [one.decision for one in together] == ["source", "adapted"]


class Zeroing(torch.optim.SGD):
    """A step that is finite, and ruins everything."""

    def step(self, closure=None):
        with torch.no_grad():
            for group in self.param_groups:
                for tensor in group["params"]:
                    tensor.zero_()


def test_scores_that_collapse_are_the_sources_and_the_state_stays():
    """With γ = β = 0 all images get the score of the last bias."""
    model, images = tiny_model(), pictures(12)
    images[4:8] *= 0.5
    recipe = Adapter(model, [mean_score], Batch(), optimizer=lambda tensors: Zeroing(tensors, lr=1.0)).recipe
    (result,), state = adapt_batch(model, State(), images[:4], recipe)
    assert result.decision == "source" and torch.equal(result.scores, result.source_scores)
    assert "all alike: the source's are returned" in result.skipped["scores"] and state == State()
    together, _ = adapt_batch(model, State(), images, recipe, 3)
    assert [one.decision for one in together] == ["source"] * 3
    alike = images[:1].expand(4, -1, -1, -1)  # of equal images equal scores are right
    (result,), state = adapt_batch(model, State(), alike, recipe)
    assert result.decision == "adapted" and result.skipped == {} and state.params


def test_statistics_that_run_away_are_undone_though_the_scores_are_finite():
    """A variance that overflows silences its channel for the rest of a stream."""

    class Loud(ScoringModel):
        def __init__(self):
            super().__init__()
            self.loud, self.norm = False, nn.BatchNorm2d(3)

        def forward(self, images, with_features=False):
            z = self.norm(images * (1e30 if self.loud else 1.0)).mean((2, 3))
            scores = z.sum(1) + images.mean((1, 2, 3))
            return (scores, z) if with_features else scores

    model, images = Loud().eval(), pictures(6)
    adapter = Adapter(model, statistics=Ema(0.5))
    with adapter.online():
        first = adapter.run(images)
        model.loud = True
        loud = adapter.run(images)
        model.loud = False
        again = adapter.run(images)
    assert loud.decision == "source" and "the statistics were not finite" in loud.skipped["scores"]
    with adapter.online():
        assert torch.equal(adapter(images), first.scores) and torch.equal(adapter(images), again.scores)


def test_a_stream_that_was_misled_by_broken_images_is_itself_again_and_says_when_it_restarted():
    """Black images teach a running average that nothing varies."""
    model, images, black = tiny_model(), pictures(8), torch.zeros(8, 3, 32, 32)
    adapter = Adapter(model, statistics=Ema(0.5))
    with adapter.online():
        misled = [adapter.run(x) for x in (images, black, black, images)]
    with adapter.online(restart=tta.Drifted()):
        watched = [adapter.run(x) for x in (images, black, black, images)]
    assert ["stream" in result.skipped for result in watched[1:3]] == [True, True]
    assert "restarted: the next batch starts from the source" in watched[2].skipped["stream"]
    assert torch.equal(watched[3].scores, adapter(images)) and not torch.allclose(misled[3].scores, adapter(images))
    assert all("stream" not in result.skipped for result in misled)


# Nobody is disturbed


def test_threads_that_share_a_model_get_their_own_scores():
    model, images = tiny_model(), pictures(8)
    expected = {rule: Adapter(model, METHOD, rule, lr=0.01)(images) for rule in (Source(), Batch(), Blend(0.5))}
    before, found, errors = snapshot(model), [], []

    def work(rule):
        try:
            for _ in range(3):
                found.append((rule, Adapter(model, METHOD, rule, lr=0.01)(images)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(rule,)) for rule in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and len(found) == 9
    assert all(torch.equal(scores, expected[rule]) for rule, scores in found)
    assert snapshot(model) == before


def test_half_precision_gives_the_scores_of_single_precision_to_rounding():
    images = 0.3 * pictures(8)
    for kind in (torch.float16, torch.bfloat16):
        half = tta.wrap_model(tiny_mixed().to(kind), features="5")
        full = tta.wrap_model(tiny_mixed(), features="5")
        for losses, rule in (((), None), ((), Batch()), (METHOD, Blend(0.5))):
            one, other = (
                Adapter(m, losses, rule, gate=None).run(x) for m, x in ((half, images.to(kind)), (full, images))
            )
            assert (one.scores.float() - other.scores).abs().max() < 0.05


def test_late_layers_alone_leave_the_early_ones_as_they_are():
    model, images = tiny_model(), pictures(6)
    picked = LateNormAffine(0.5)(model)
    assert list(picked) == list(norm_affine(model))[6:] and len(picked) == 6
    result = Adapter(model, METHOD, Blend(0.5), params=LateNormAffine(0.5), lr=0.01).run(images)
    by_names = Adapter(
        model, METHOD, Blend(0.5), params=lambda m: {n: p for n, p in norm_affine(m).items() if n in picked}, lr=0.01
    ).run(images)
    assert torch.equal(result.scores, by_names.scores) and not torch.equal(result.scores, result.initial_scores)
    with pytest.raises(ValueError, match="share"):
        LateNormAffine(0)


def test_features_inside_what_need_not_run_again_are_still_seen():
    """Only the last layer is adapted: all before it is the same at each step, the layer that gives the features among it."""
    model = tta.wrap_model(tiny_mixed(), features="5")
    head = lambda m: {"module.8.bias": m.module[8].bias}  # noqa: E731
    result = Adapter(model, [*METHOD, mean_score], Source(), params=head, lr=0.1).run(pictures(6))
    assert len(result.trace) == 3
    assert torch.allclose(result.scores - result.source_scores, torch.full((6,), 0.3), atol=1e-3)


def test_a_single_number_can_be_adapted():
    """A parameter without dimensions."""

    class Scaled(ScoringModel):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, images, with_features=False):
            features = images.mean((2, 3))
            scores = self.scale * features.sum(1)
            return (scores, features) if with_features else scores

    model, images = Scaled().eval(), pictures(4)
    result = Adapter(model, [mean_score], Source(), params=lambda m: {"scale": m.scale}, lr=0.1, steps=1).run(images)
    assert torch.allclose(result.scores, result.source_scores * 2.1 / 2, atol=1e-5)


def test_a_model_is_known_by_its_buffers_too():
    """From Python 3.12 on a typed protocol looks attributes up statically, where those of a module's buffers are not."""
    model = tta.load_source_model()
    with pytest.raises(AttributeError):
        inspect.getattr_static(model, "feature_mean")
    assert Adapter(model).model is model
