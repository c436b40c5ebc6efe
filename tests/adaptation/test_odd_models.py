"""Models as people have them: what each computes is right, or is refused with the reason.

Right means: without adaptation the scores are the module's own, bit for bit; under the batch's own moments they are those of
training mode; losses move γ and β, and with them the scores; and the module stays as it was.
"""

import copy
import warnings

import pytest
import torch
from helpers import METHOD, far, mean_score, pictures, plain_scores, seeded, snapshot
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torchvision.ops import StochasticDepth

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Batch, Blend, Source, batchnorm_layers

IMAGES = pictures(6)


def settled(module: nn.Module) -> nn.Module:
    """With moments, γ and β (where there are any) that are not those of a fresh layer, in evaluation mode."""
    for layer in batchnorm_layers(module).values():
        if layer.running_mean is not None:
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
        if layer.affine:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.2)
    return module.eval()


def network(**about) -> nn.Sequential:
    """A convolution, BatchNorm with these settings, the mean over positions, a linear layer: (B, 3, H, W) → (B, 1)."""
    return seeded(
        lambda: settled(
            nn.Sequential(
                nn.Conv2d(3, 5, 3, 2), nn.BatchNorm2d(5, **about), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                nn.Linear(5, 1),
            )
        )
    )  # fmt: skip


class Volumes(nn.Module):
    """Colours as the depth of a volume: a convolution and BatchNorm in three dimensions."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv3d(1, 4, 3, 2, 1), nn.BatchNorm3d(4), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.norm(self.conv(x[:, None])).relu().mean((2, 3, 4)))


class Sequences(nn.Module):
    """Positions as a sequence (B, C, L) for BatchNorm in one dimension."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm1d(4), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.norm(self.conv(x).flatten(2)).relu().mean(2))


class Shared(nn.Module):
    """One BatchNorm layer that runs twice in a pass, and stands under two names."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 1)
        self.norm = self.again = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.head(self.again(self.norm(self.conv(x)).relu()).mean((2, 3)))


class Random(nn.Module):
    """Dropout and stochastic depth; left in training mode."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Linear(4, 1)
        self.depth, self.drop = StochasticDepth(0.5, "row"), nn.Dropout(0.5)

    def forward(self, x):
        z = self.norm(self.conv(x))
        return self.head(self.drop((z + self.depth(z.relu())).mean((2, 3))))


class Doubled(nn.Module):
    """A parametrisation: the tensor that is stored is half of the one that is used."""

    def forward(self, stored):
        return 2 * stored


def frozen() -> nn.Module:
    return network().requires_grad_(False)


def parametrised() -> nn.Module:
    """The convolution's weight by its length and direction, γ by its half."""
    module = network()
    parametrizations.weight_norm(module[0])
    parametrize.register_parametrization(module[1], "weight", Doubled())
    return module


def hooked() -> nn.Module:
    """Somebody's hooks change what goes into BatchNorm and what comes out of it."""
    module = network()
    module[1].register_forward_pre_hook(lambda _, args: (args[0] * 1.5,))
    module[1].register_forward_hook(lambda _, args, output: output + 0.25)
    return module


def compiled_part() -> nn.Module:
    module = network()
    module[0] = torch.compile(module[0], backend="eager")
    return module


def compiled_in_place() -> nn.Module:
    module = network()
    module.compile(backend="eager")
    return module


def scripted_part() -> nn.Module:
    """TorchScript where no BatchNorm is."""
    module = network()
    module[0] = torch.jit.script(module[0])
    return module


MODELS = {
    "momentum=None": lambda: network(momentum=None),
    "frozen": frozen,
    "shared layer": lambda: seeded(lambda: settled(Shared())),
    "one dimension": lambda: seeded(lambda: settled(Sequences())),
    "three dimensions": lambda: seeded(lambda: settled(Volumes())),
    "dropout, stochastic depth": lambda: seeded(lambda: settled(Random())),
    "parametrised": parametrised,
    "hooks": hooked,
    "compiled": lambda: torch.compile(network(), backend="eager"),
    "compiled in place": compiled_in_place,
    "compiled part": compiled_part,
    "DataParallel": lambda: nn.DataParallel(network()),
    "scripted part": scripted_part,
    "traced by fx": lambda: torch.fx.symbolic_trace(network()),
}


@pytest.fixture(params=MODELS)
def model(request) -> nn.Module:
    return made(MODELS[request.param])


def made(make) -> nn.Module:
    """TorchScript and eager quantisation are deprecated, and still about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def in_training_mode(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(B,) of a copy in training mode, without what it would draw."""
    module = copy.deepcopy(getattr(model, "_orig_mod", getattr(model, "module", model))).train()
    for part in module.modules():
        if isinstance(part, (nn.Dropout, StochasticDepth)):
            part.p = 0.0
    with torch.no_grad():
        return module(images).flatten()


def test_without_adaptation_the_scores_are_the_modules_own_bit_for_bit(model):
    own, before = plain_scores(model, IMAGES).flatten(), snapshot(model)
    assert torch.equal(tta.Adapter(tta.wrap_model(model), losses=(), statistics=Source())(IMAGES), own)
    assert snapshot(model) == before


def test_under_the_batchs_own_moments_they_are_those_of_training_mode(model):
    """In double precision, to rounding."""
    model, images = model.double(), IMAGES.double()
    expected, before = in_training_mode(model, images), snapshot(model)
    found = tta.Adapter(tta.wrap_model(model), statistics=Batch())(images)
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)
    assert far(found, plain_scores(model, images).flatten(), 1e-3)
    assert snapshot(model) == before


def test_losses_move_gamma_and_beta_and_nothing_of_the_module(model):
    before = snapshot(model)
    result = tta.Adapter(tta.wrap_model(model), METHOD, Blend(0.5), lr=0.01).run(IMAGES)
    assert len(result.trace) == 3 and result.skipped == {} and result.decision == "adapted"
    assert far(result.scores, result.initial_scores, 1e-4) and snapshot(model) == before


def test_episodes_that_share_a_pass_are_those_that_do_not(model):
    """In double precision, to rounding."""
    wrapped, groups = tta.wrap_model(model.double()), [0, 0, 0, 1, 1, 1]
    settings = {"losses": (mean_score,), "statistics": Blend(0.5), "lr": 0.01}
    alone, folded = (tta.Adapter(wrapped, **settings, episodes_per_pass=n).run(IMAGES.double(), groups) for n in (1, 2))
    assert torch.allclose(folded.scores, alone.scores, rtol=0, atol=1e-8)


def test_chance_is_off_in_a_module_that_is_in_training_mode():
    model = made(MODELS["dropout, stochastic depth"])
    own = plain_scores(model, IMAGES).flatten()
    assert torch.equal(tta.Adapter(tta.wrap_model(model.train()), losses=(), statistics=Source())(IMAGES), own)


def test_a_layer_without_gamma_and_beta_has_its_statistics_adapted_and_nothing_else():
    model = network(affine=False)
    found = tta.Adapter(tta.wrap_model(model.double()), statistics=Batch())(IMAGES.double())
    assert torch.allclose(found, in_training_mode(model, IMAGES.double()), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="no normalisation layer with γ and β; pass params="):
        tta.Adapter(tta.wrap_model(model), METHOD)


def test_a_layer_without_running_statistics_has_the_batchs_alone():
    model = network(track_running_stats=False)
    own = plain_scores(model, IMAGES).flatten()
    for rule in (Batch(), Source()):
        result = tta.Adapter(tta.wrap_model(model), METHOD, rule, lr=0.01).run(IMAGES)
        assert torch.allclose(result.initial_scores, own, atol=1e-5) and far(result.scores, own, 1e-4)
    with pytest.raises(ValueError, match=r"layer 'module.1' keeps no running statistics .*use statistics=Batch\(\)"):
        tta.Adapter(tta.wrap_model(model))(IMAGES)


@pytest.fixture
def group(tmp_path):
    """This process as the only one of a group, as a training on many devices has it."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def adapted(model: nn.Module) -> torch.Tensor:
    return tta.Adapter(model, METHOD, Blend(0.5), lr=0.01)(IMAGES)


def test_a_model_that_was_compiled_after_wrapping_makes_no_difference():
    plain = adapted(tta.wrap_model(network()))
    assert torch.equal(adapted(torch.compile(tta.wrap_model(network()), backend="eager")), plain)


@pytest.mark.parametrize("parallel", [nn.DataParallel, nn.parallel.DistributedDataParallel])
def test_a_batch_is_never_cut_up_for_many_devices(parallel, group, monkeypatch):
    """There each would measure its part of the batch alone. Without devices the wrappers only pass on what they get, so
    that they ran at all is the fault."""
    plain, model = adapted(tta.wrap_model(network())), tta.wrap_model(parallel(network()))

    def scatter(*args, **kwargs):
        raise AssertionError("the wrapper ran")

    monkeypatch.setattr(parallel, "forward", scatter)
    assert torch.equal(adapted(model), plain)


@pytest.mark.parametrize("training", [False, True])
def test_a_layer_that_asks_other_processes_for_their_moments_does_not(training, group):
    """In training mode it would: on a CPU that is an error, and with several processes that score other images, a wait."""
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(network()).train(training)
    assert torch.equal(adapted(tta.wrap_model(synced)), adapted(tta.wrap_model(network())))


def test_a_scripted_module_is_refused_where_rules_and_hooks_cannot_reach():
    whole = made(lambda: torch.jit.script(network()))
    with pytest.raises(TypeError, match="TorchScript, which hides its layers: wrap the Python module"):
        tta.wrap_model(whole)
    partly = nn.Sequential(made(lambda: torch.jit.script(network()[:2])), *network()[2:], nn.BatchNorm1d(1)).eval()
    model = tta.wrap_model(partly)
    own = plain_scores(partly, IMAGES).flatten()
    assert torch.equal(tta.Adapter(model, losses=(), statistics=Source())(IMAGES), own)
    with pytest.raises(
        ValueError,
        match=r"^layer 'module.0.1' is compiled by TorchScript, where Batch\(\) cannot reach it: "
        r"take the Python module that was compiled, or statistics=Source\(\)$",
    ):
        tta.Adapter(model, statistics=Batch())(IMAGES)


def test_a_scripted_part_in_training_mode_is_refused_before_it_changes():
    """It used to count the pass, and to average its moments into the module's."""
    partly = nn.Sequential(made(lambda: torch.jit.script(network()[:2].train())), *network()[2:])
    before = {name: tensor.clone() for name, tensor in partly.state_dict().items()}
    with pytest.raises(ValueError, match=r"TorchScript in training mode.*call \.eval\(\)"):
        tta.Adapter(tta.wrap_model(partly), losses=(), statistics=Source())(IMAGES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in partly.state_dict().items())


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="no quantised kernels here")
def test_a_quantised_head_stays_and_what_comes_before_it_adapts():
    model = made(lambda: torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8))
    own, wrapped = plain_scores(model, IMAGES).flatten(), tta.wrap_model(model, features="4")
    assert torch.equal(tta.Adapter(wrapped, losses=(), statistics=Source())(IMAGES), own)
    result = tta.Adapter(wrapped, METHOD, Batch(), lr=0.01).run(IMAGES)
    plain = tta.Adapter(tta.wrap_model(network()), METHOD, Batch(), lr=0.01)(IMAGES)
    assert torch.allclose(result.scores, plain, atol=0.02) and far(result.scores, own, 0.05)


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="no quantised kernels here")
def test_where_quantisation_has_folded_batchnorm_away_the_source_scores_and_says_so():
    def folded():
        conv, norm, act, pool, flat, head = network()
        model = nn.Sequential(
            torch.ao.quantization.QuantStub(), conv, norm, act, pool, flat, head, torch.ao.quantization.DeQuantStub()
        ).eval()
        model = torch.ao.quantization.fuse_modules(model, [["1", "2", "3"]])
        model.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
        torch.ao.quantization.prepare(model, inplace=True)(IMAGES)
        return torch.ao.quantization.convert(model)

    model = made(folded)
    with pytest.warns(UserWarning, match="no BatchNorm layer.*scores as the source does"):
        adapter = tta.Adapter(tta.wrap_model(model, features="5"))
    assert torch.equal(adapter(IMAGES), plain_scores(model, IMAGES).flatten())
    with pytest.raises(ValueError, match=r"Batch\(\) needs BatchNorm layers, and this model has none"):
        tta.Adapter(tta.wrap_model(model, features="5"), statistics=Batch())(IMAGES)


@pytest.mark.parametrize("rule", [Source(), Blend(0.5)], ids=str)
def test_a_model_made_in_inference_mode_learns_like_any_other(rule):
    """Its tensors cannot be part of a graph; PyTorch's error used to come through."""
    with torch.inference_mode():
        model = tta.wrap_model(network())
    found, expected = (tta.Adapter(m, METHOD, rule, lr=0.01).run(IMAGES) for m in (model, tta.wrap_model(network())))
    assert torch.equal(found.scores, expected.scores) and far(found.scores, found.initial_scores, 1e-4)
    assert all(parameter.is_inference() for parameter in model.parameters())


def test_a_module_whose_layers_have_no_weights_yet_is_refused():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(1)).eval()
    with pytest.raises(ValueError, match=r"no values yet for its parameter '1.weight': let it score an image first"):
        tta.wrap_model(module)
    module(IMAGES)
    assert tta.Adapter(tta.wrap_model(module), statistics=Batch())(IMAGES).isfinite().all()


def test_a_buffer_that_a_forward_pass_assigns_is_not_the_modules():
    class Counting(nn.Sequential):
        def forward(self, x):
            self.passes = self.passes + 1
            return super().forward(x)

    model = Counting(*network())
    model.register_buffer("passes", torch.zeros(()))
    before = snapshot(model)
    tta.Adapter(tta.wrap_model(model), METHOD, Batch())(IMAGES)
    assert snapshot(model) == before


def test_the_first_layers_and_the_gates_layer_are_the_first_that_run():
    """Registered in the order in which they run, or in the other: the default recipe, its gate, and what it measured."""

    class Stages(nn.Module):
        def __init__(self, names):
            super().__init__()
            for name in names:
                inputs, outputs = {"a": (3, 4), "b": (4, 6), "c": (6, 8)}[name]
                self.add_module(name, nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2), nn.BatchNorm2d(outputs)))
            self.head = nn.Linear(8, 1)

        def forward(self, x):
            for stage in (self.a, self.b, self.c):
                x = stage(x).relu()
            return self.head(x.mean((2, 3)))

    ordered, other = seeded(lambda: settled(Stages("abc"))), Stages("cab").eval()
    other.load_state_dict(ordered.state_dict())
    for images in (IMAGES, 0.2 * IMAGES):
        found, expected = (tta.Adapter(tta.wrap_model(model)).run(images) for model in (other, ordered))
        assert torch.equal(found.scores, expected.scores) and found.decision == expected.decision
        assert list(found.shift) == list(expected.shift) == ["module.a.1", "module.b.1", "module.c.1"]
