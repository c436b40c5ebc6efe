"""Whatever is passed: the right thing, or one error that names the argument, what it wants and what it got."""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers import METHOD, RULES, pictures, plain_scores, snapshot, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import LateNormAffine
from tta_iqa_lib.adaptation.copies import Ladder
from tta_iqa_lib.adaptation.functional import contrastive_groups
from tta_iqa_lib.imaging.crops import grid_crops, pad_to, resize_to, symmetries
from tta_iqa_lib.imaging.distortions import DISTORTIONS
from tta_iqa_lib.imaging.scenes import clouds, dead_leaves

cheap = settings(derandomize=True, database=None, deadline=None, max_examples=15)
MODEL = tiny_model()
PICTURES = pictures(8)


# Settings


class Kind(NamedTuple):
    """Of an argument: values that it takes, and values that it refuses."""

    right: st.SearchStrategy
    wrong: st.SearchStrategy


NOT_NUMBERS = st.sampled_from([math.nan, "0.5", [0.5], (1, 2), {}, 1j, True, torch.tensor([0.5, 0.5]), np.ones(2)])
NOT_FINITE = st.sampled_from([math.inf, -math.inf])
NOT_WHOLE = st.one_of(NOT_NUMBERS, NOT_FINITE, st.floats(1.01, 1.99), st.just(2.0))
NOT_CALLED = st.sampled_from(["mean", 3, 0.5, [1], {"a": 1}])


def number(low: float = -1e6, high: float = 1e6, above: bool = False, finite: bool = True) -> Kind:
    """In [low, high], or (low, high]; a bound of 1e6 is none."""
    wrong = [NOT_NUMBERS, *([NOT_FINITE] if finite else [st.just(-math.inf)])]
    if low > -1e6:
        wrong.append(st.floats(-1e300, low, exclude_max=not above, allow_subnormal=False))
        wrong.append(st.just(low if above else low - 0.5))
    if high < 1e6:
        wrong.append(st.floats(high, 1e300, exclude_min=True, allow_subnormal=False))
        wrong.append(st.just(high + 0.5))
    return Kind(st.floats(low, high, exclude_min=above, allow_subnormal=False), st.one_of(wrong))


def count(smallest: int) -> Kind:
    return Kind(st.integers(smallest, smallest + 3), st.one_of(NOT_WHOLE, st.integers(max_value=smallest - 1)))


def choice(*names: Any) -> Kind:
    texts = st.one_of(st.text(max_size=9), st.sampled_from([3, 1.0, None, ["jpeg", "blue"], True, math.nan]))
    return Kind(st.sampled_from(names), texts.filter(lambda text: isinstance(text, (bool, float)) or text not in names))


NUMBER, SHARE, NOT_NEGATIVE, POSITIVE = number(), number(0, 1), number(0), number(0, above=True)
VIEWS = choice(1, 2, 8)
RULE = Kind(st.sampled_from(RULES), NOT_CALLED)
CALLED = Kind(st.just(abs), NOT_CALLED)
COPIES = Kind(st.just(tta.Pair(kinds="dark")), st.one_of(NOT_CALLED, st.just(abs)))
MANY = st.sampled_from([3, 0.5, abs])  # no list


def or_none(kind: Kind) -> Kind:
    """None stands for a default of its own."""
    return Kind(kind.right, kind.wrong.filter(lambda value: value is not None))


ADAPTER = {
    "losses": Kind(st.just(METHOD), st.one_of(MANY, st.just(METHOD[0]), st.just("ab"))),
    "statistics": RULE,
    "params": Kind(st.just("norm-affine"), st.sampled_from(["norm", 3, [1]])),
    "steps": count(0),
    "lr": NOT_NEGATIVE,
    "optimizer": CALLED,
    "seed": count(0),
    "gate": CALLED,
    "views": or_none(VIEWS),
    "sam_rho": NOT_NEGATIVE,
    "crops_per_image": count(1),
    "ensemble": Kind(st.just([tta.Batch()]), st.one_of(MANY, st.just(["batch"]))),
    "episodes_per_pass": count(1),
    "screen": CALLED,
}
EDGES = {"views": VIEWS, "crop": count(1), "side": count(1)}
CHANNELS = NOT_NUMBERS.filter(lambda value: value != [0.5] if isinstance(value, list) else True)
LOOK = {"mean": Kind(NUMBER.right, CHANNELS), "std": Kind(POSITIVE.right, st.one_of(CHANNELS, st.floats(-9, 0)))}
SCORES = [0.1, 0.5, 0.4, 0.9]


def adapter(**setting):
    """With losses, unless they are what is set."""
    return tta.Adapter(MODEL, **{"losses": METHOD, "statistics": tta.Source()} | setting)


def predict(**setting):
    return tta.Adapter(MODEL, statistics=tta.Source()).predict(PICTURES, **setting)


def online(**setting):
    with tta.Adapter(MODEL, statistics=tta.Source()).online(**setting):
        pass


# What is called, the arguments that it needs besides, and of what kind each other one is.
TABLE: dict[Any, tuple[dict, dict[str, Kind]]] = {
    tta.Blend: ({}, {"alpha": SHARE}),
    tta.Ema: ({}, {"momentum": SHARE}),
    tta.Shrink: ({}, {"prior": NOT_NEGATIVE}),
    tta.Adaptive: ({}, {"caution": NOT_NEGATIVE}),
    tta.First: ({"rule": tta.Batch()}, {"rule": RULE, "share": SHARE}),
    LateNormAffine: ({}, {"share": number(0, 1, above=True)}),
    tta.RelativeRank: ({}, {"weight": NUMBER, "copies": COPIES}),
    tta.ScoreOrder: ({}, {"weight": NUMBER, "copies": COPIES, "temperature": POSITIVE, "metric": CALLED}),
    tta.GroupContrastive: (
        {},
        {
            "weight": NUMBER,
            "fraction": number(0, 0.5, above=True),
            "temperature": POSITIVE,
            "form": choice("mean-log", "log-mean"),
        },
    ),
    tta.Anchor: ({}, {"weight": NUMBER}),
    tta.Pair: (
        {"mild": 0.2, "severe": 1.0},
        {
            "kinds": choice(*DISTORTIONS),
            "mild": Kind(st.floats(0, 0.9), SHARE.wrong),
            "severe": number(0.2, 1, above=True),
            "choose": choice("gap", "signed", "random"),
            "choose_on": number(0, 1, above=True),
        },
    ),
    Ladder: ({}, {"severities": Kind(st.just([0.1, 1]), st.one_of(MANY, st.just([0.1, math.nan])))}),
    tta.ShiftGate: ({}, {"threshold": number(0, finite=False), "min_images": count(0)}),
    tta.Blank: ({}, {"contrast": NOT_NEGATIVE, "noise": NOT_NEGATIVE}),
    tta.Drifted: ({}, {"agreement": number(-1, 1), "min_images": count(0)}),
    adapter: ({}, ADAPTER),
    predict: ({}, {"batch_size": count(1)}),
    online: ({}, {"predict": choice("after", "before"), "restart": CALLED}),
    tta.small_model: ({"widths": (4,)}, EDGES),
    tta.QualityModel: ({"features": torch.nn.Flatten(), "regressor": torch.nn.Linear(3, 1)}, LOOK | EDGES),
    tta.wrap_model: (
        {"module": MODEL},
        {
            "module": Kind(st.just(MODEL), st.sampled_from([abs, "resnet18", None])),
            "features": or_none(choice("regressor")),
            "score": CALLED,
            "normalise": Kind(
                st.just(((0.5,), (0.2,))), st.sampled_from([3, (0.5,), (0.5, 0.0), ((0.5, 0.5), 1.0), "ab"])
            ),
            **EDGES,
        },
    ),
    tta.distort: (
        {"images": PICTURES, "kind": "dark", "severity": 0.5},
        {"kind": choice(*DISTORTIONS), "severity": SHARE},
    ),
    tta.evaluate: ({"scores": SCORES, "target": SCORES, "count": 2}, {"count": count(2), "seed": count(0)}),
    tta.score_order_loss: (
        {"better": PICTURES[0, 0, 0], "worse": PICTURES[0, 1, 0]},
        {"margin": NUMBER, "temperature": POSITIVE},
    ),
    tta.group_contrastive_loss: (
        {"features": PICTURES[0, 0], "pseudo_scores": PICTURES[0, 1, 0]},
        {
            "fraction": number(0, 0.5, above=True),
            "temperature": POSITIVE,
            "form": choice("mean-log", "log-mean"),
        },
    ),
    contrastive_groups: ({"pseudo_scores": PICTURES[0, 0, 0]}, {"fraction": number(0, 0.5, above=True)}),
    pad_to: ({"image": PICTURES[0]}, {"size": count(1)}),
    grid_crops: ({"image": PICTURES[0], "size": 4}, {"size": count(1), "count": choice(1, 4, 9)}),
    resize_to: ({"image": PICTURES[0]}, {"side": count(1)}),
    symmetries: ({"images": PICTURES}, {"count": VIEWS}),
    dead_leaves: ({"seed": 0, "size": 16, "leaves": 3}, {"size": count(12), "shape": choice("disc", "square")}),
    clouds: ({"seed": 0}, {"size": count(2)}),
}
ROWS = [
    pytest.param(call, rest, name, kind, id=f"{call.__name__}-{name}")
    for call, (rest, kinds) in TABLE.items()
    for name, kind in kinds.items()
]


def shown(value) -> list[str]:
    """How a message may tell what it got: the value, its type or shape, or the member that is wrong."""
    texts = [repr(value), repr(tuple(value)) if isinstance(value, list) else "", type(value).__name__]
    if isinstance(value, (list, tuple)):
        texts += [f"got {len(value)}", *(f"got {member!r}" for member in value)]
    return [*filter(None, texts), *([f"got {tuple(value.shape)}"] if hasattr(value, "shape") else [])]


@pytest.mark.parametrize(("call", "rest", "name", "kind"), ROWS)
def test_a_wrong_setting_is_named(call, rest, name, kind):
    @cheap
    @given(kind.wrong)
    def refused(value):
        with pytest.raises((TypeError, ValueError, KeyError)) as caught:
            call(**rest | {name: value})
        message = str(caught.value)
        assert re.search(rf"\b{name}\b", message), message
        assert any(text in message for text in shown(value)), message

    refused()


@pytest.mark.parametrize(("call", "rest", "name", "kind"), ROWS)
def test_a_right_setting_is_taken(call, rest, name, kind):
    @settings(cheap, max_examples=3)
    @given(kind.right)
    def taken(value):
        call(**rest | {name: value})

    taken()


# Images


def wrong_images(kind: str) -> Any:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 16, 16, generator=generator)
    return {
        "0 to 255": images * 255,
        "8 bits": (images * 255).byte(),
        "−1 to 1": images * 2 - 1,
        "normalised": (images - 0.45) / 0.225,
        "complex": images.to(torch.complex64),
        "one channel": images[:, :1],
        "two channels": images[:, :2],
        "four channels": torch.cat([images, images[:, :1]], 1),
        "channels last": images.permute(0, 2, 3, 1),
        "one image": images[0],
        "grey image": images[0, 0],
        "a fifth axis": images[None],
        "no image": images[:0],
        "no rows": images[:, :, :0],
        "no columns": images[..., :0],
        "NaN": images.masked_fill(images > 0.9, math.nan),
        "infinite": images.masked_fill(images > 0.9, math.inf),
        "array": images.numpy(),
        "list": list(images),
        "path": "photograph.jpg",
        "nothing": None,
    }[kind]


WRONG_IMAGES = (
    "0 to 255", "8 bits", "−1 to 1", "normalised", "complex", "one channel", "two channels", "four channels", "channels last",
    "one image", "grey image", "a fifth axis", "no image", "no rows", "no columns", "NaN", "infinite", "array", "list", "path",
    "nothing",
)  # fmt: skip
TAKE_IMAGES = {
    "adapter": lambda images: tta.Adapter(MODEL, METHOD)(images),
    "adapter.run by groups": lambda images: tta.Adapter(MODEL).run(images, [0, 0, 1, 1]),
    "adapter.predict": lambda images: tta.Adapter(MODEL).predict(images),
    "adapter.online": lambda images: _stream(images),
    "adapt_batch": lambda images: tta.adapt_batch(MODEL, tta.State(), images, tta.Recipe()),
    "distort": lambda images: tta.distort(images, "dark", 0.5),
}
# What a function makes of its own accord of what others refuse.
FITTING = {("adapter.predict", "list"), ("adapter.predict", "array"), ("distort", "no image")}


def _stream(images):
    adapter = tta.Adapter(MODEL, statistics=tta.Ema(0.5))
    with adapter.online():
        return adapter(images)


@pytest.mark.parametrize("kind", WRONG_IMAGES)
@pytest.mark.parametrize("taker", TAKE_IMAGES)
def test_wrong_images_are_refused_with_what_they_are(taker, kind):
    if (taker, kind) in FITTING:
        return
    images = wrong_images(kind)
    with pytest.raises((TypeError, ValueError), match=r"\(B, 3, H, W\)|RGB in \[0, 1\]|images hold values") as caught:
        TAKE_IMAGES[taker](images)
    got = "not finite" if kind in ("NaN", "infinite") else "got "
    assert got in str(caught.value)


@st.composite
def batches(draw) -> torch.Tensor:
    """(B, 3, H, W) of any size, type, memory order and content: noise, black, white, one grey, one picture many times."""
    count, height, width = draw(st.integers(1, 5)), draw(st.integers(1, 24)), draw(st.integers(1, 24))
    noise = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    content = draw(st.sampled_from(["noise", "black", "white", "grey", "one"]))
    images = {
        "noise": noise,
        "black": torch.zeros_like(noise),
        "white": torch.ones_like(noise),
        "grey": torch.full_like(noise, 0.5),
        "one": noise[:1].expand(count, -1, -1, -1),
    }[content].to(draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])))
    order = draw(st.sampled_from(["plain", "channels last", "mirrored", "turned"]))
    if order == "channels last":
        return images.to(memory_format=torch.channels_last)
    if order == "turned":
        return images.transpose(2, 3)
    return images.flip(3) if order == "mirrored" else images


@settings(cheap, max_examples=10)
@given(batches(), st.sampled_from(RULES), st.sampled_from([(), METHOD, (tta.ScoreOrder(), tta.Anchor())]))
def test_any_batch_is_scored_and_nothing_is_changed(images, rule, losses):
    """Finite scores in the model's type, the same for any order in memory; images and model stay as they are."""
    before, content = snapshot(MODEL), images.clone()
    adapter = tta.Adapter(MODEL, losses, rule)
    result = adapter.run(images)
    assert result.scores.shape == (len(images),) and result.scores.dtype == torch.float32
    assert result.scores.isfinite().all()
    assert torch.allclose(result.source_scores, plain_scores(MODEL, images.float()), atol=1e-5)
    assert torch.equal(images, content) and snapshot(MODEL) == before
    assert torch.allclose(adapter(images.contiguous()), result.scores, atol=1e-4)


@cheap
@given(batches(), st.sampled_from(sorted(DISTORTIONS)), st.floats(0, 1))
def test_any_batch_is_distorted_within_its_range(images, kind, severity):
    content = images.clone()
    worse = tta.distort(images, kind, severity, torch.Generator().manual_seed(0))
    assert worse.shape == images.shape and worse.dtype == images.dtype and torch.equal(images, content)
    assert worse.min() >= 0 and worse.max() <= 1  # NaN would fail both


# Scores


VECTORS = st.lists(st.one_of(st.floats(-1e6, 1e6, width=32), st.integers(-5, 5)), min_size=2, max_size=12)


@cheap
@given(VECTORS, st.data())
@pytest.mark.filterwarnings("ignore::tta_iqa_lib.metrics.ConstantInputWarning")
def test_correlations_of_any_two_vectors(pred, data):
    """In [−1, 1], or undefined where one side is constant; symmetric; of lists, arrays and tensors the same."""
    target = data.draw(st.permutations(pred))
    for metric in (tta.srcc, tta.plcc, tta.krcc):
        value = metric(pred, target)
        assert math.isnan(value) == (len(set(pred)) == 1)
        same = [metric(kind(pred), kind(target)) for kind in (np.array, lambda v: torch.tensor(v, dtype=torch.float64))]
        np.testing.assert_allclose([metric(target, pred), *same], value, atol=1e-12)
        assert math.isnan(value) or abs(value) <= 1 + 1e-12


@pytest.mark.parametrize("metric", [tta.srcc, tta.plcc, tta.krcc, tta.evaluate])
@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (torch.tensor(SCORES)[:, None], r"\(4, 1\)"),
        (torch.tensor(0.5), r"\(\)"),
        (torch.tensor(SCORES[:3]), "3 "),
        (["a", "b", "c", "d"], "'a'"),
        ([1, [2], 3, 4], "1, "),
        (None, "None"),
        (torch.tensor(SCORES) * 1j, "tensor"),
    ],
    ids=str,
)
def test_scores_of_another_shape_or_kind_are_refused(metric, wrong, got):
    """(B, 1) against (B,) would broadcast."""
    for arguments in ((wrong, SCORES), (SCORES, wrong)):
        with pytest.raises(ValueError, match=f"(predictions|targets).*{got}|{got}.*(predictions|targets)"):
            metric(*arguments)


FEATURES, COLUMN = pictures(1)[0, 0], pictures(1)[0, 0, 0]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: tta.relative_rank_loss(FEATURES, FEATURES, FEATURES[:, :1]), "severe"),
        (lambda: tta.relative_rank_loss(COLUMN, COLUMN, COLUMN), "anchor"),
        (lambda: tta.relative_rank_loss(FEATURES, FEATURES.tolist(), FEATURES), "mild"),
        (lambda: tta.relative_rank_loss(FEATURES.byte(), FEATURES, FEATURES), "anchor"),
        (lambda: tta.score_order_loss(COLUMN, COLUMN[:, None]), "worse"),
        (lambda: tta.score_order_loss(COLUMN[:, None], COLUMN[:, None]), "better"),
        (lambda: tta.score_order_loss(COLUMN, COLUMN, COLUMN[:, None]), "margin"),
        (lambda: tta.score_order_loss(3.0, COLUMN), "better"),
        (lambda: tta.group_contrastive_loss(FEATURES, COLUMN[:, None]), "pseudo_scores"),
        (lambda: tta.group_contrastive_loss(FEATURES, COLUMN[:5]), "pseudo_scores"),
        (lambda: tta.group_contrastive_loss(COLUMN, COLUMN), "features"),
        (lambda: tta.group_contrastive_loss(FEATURES, COLUMN / 0 * 0), "pseudo_scores"),
        (lambda: contrastive_groups(COLUMN[:, None]), "pseudo_scores"),
        (lambda: tta.Adapter(MODEL).run(PICTURES, [0, 1]), "group labels"),
        (lambda: tta.Adapter(MODEL).run(PICTURES, [[0]] * 8), "groups"),
        (lambda: tta.Adapter(MODEL).run(PICTURES, [math.nan] * 8), "groups"),
        (lambda: tta.Adapter(MODEL).run(PICTURES, 3), "groups"),
        (lambda: tta.evaluate(SCORES, SCORES, groups=[[1]] * 4), "groups"),
        (lambda: tta.Adapter("resnet18"), "str"),
        (lambda: tta.distort(PICTURES, "dark", torch.full((8,), math.nan)), "severity"),
    ],
)
def test_what_does_not_belong_together_is_named(call, named):
    with pytest.raises((TypeError, ValueError), match=named):
        call()


def test_labels_of_groups_may_be_texts():
    adapter = tta.Adapter(MODEL, statistics=tta.Batch())
    texts, numbers = adapter.run(PICTURES, ["a", "b"] * 4), adapter.run(PICTURES, torch.tensor([0, 1] * 4))
    assert torch.equal(texts.scores, numbers.scores)


def test_the_readme_counts_the_arguments_that_are_tried():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"{len(ROWS)} settings and {len(WRONG_IMAGES)} kinds of wrong images" in readme
