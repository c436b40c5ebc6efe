"""Chapter 5, batch normalisation: its checkers."""

from functools import cache

import torch

from ...adaptation.normalisation import batchnorm_layers
from ...datasets.tinyshift import tinyshift
from ...imaging.distortions import distort
from .checker import Wrong, checker, close, near, yes_or_no
from .fresh import source_model


@checker("ex05_1")
def ex05_1(unmix):
    """`unmix(mean, var, mean_s, var_s, alpha) -> (mean_t, var_t)`: the batch's moments out of a mixture's, on real samples."""
    generator = torch.Generator().manual_seed(51)
    old = 1 + 0.5 * torch.randn(4, 3000, generator=generator, dtype=torch.float64)
    new = -2 + 2.0 * torch.randn(4, 1000, generator=generator, dtype=torch.float64)
    both = torch.cat([old, new], 1)  # α = 1/4: the mixture is simply both sets together
    mean, var, mean_s, var_s = (
        f(x) for x in (both, old) for f in (lambda x: x.mean(1), lambda x: x.var(1, correction=0))
    )
    mean_t, var_t = unmix(mean, var, mean_s, var_s, 0.25)
    right = new.mean(1), new.var(1, correction=0)
    if not close(mean_t, right[0]):
        if close(mean_t, (mean - 0.25 * mean_s) / 0.75):
            raise Wrong("the weights are swapped: alpha is the share of the test batch, not of the source")
        if close(mean_t, 0.75 * mean_s + 0.25 * mean):
            raise Wrong("this mixes once more; the mixture is given, and the batch is asked for")
        raise Wrong("the mean is not right: solve equation (2) for the batch's mean")
    if close(var_t, (var - 0.75 * var_s) / 0.25):
        raise Wrong("this forgets the spread between the two means, which is part of the mixture's variance")
    if close(var_t, (var - 0.75 * var_s - 0.25 * 0.75 * (mean - mean_s) ** 2) / 0.25):
        raise Wrong(
            "the spread is that between the *batch's* mean and the source's, not between the mixture's and the source's"
        )
    if close(torch.as_tensor(var_t) ** 2, right[1]):
        raise Wrong("this is the standard deviation; BatchNorm keeps the variance")
    if not close(var_t, right[1]):
        raise Wrong(
            "the mean is right, the variance is not: E[x²] = v + μ² holds for the mixture, the source and the batch"
        )
    whole = unmix(*right, mean_s, var_s, 1.0)
    if not (close(whole[0], right[0]) and close(whole[1], right[1])):
        raise Wrong("alpha = 1 is the batch alone: its moments must come back as they are")


@checker("ex05_2")
def ex05_2(best_share):
    """`best_share(shift, var, count) -> α`: the share of the batch's mean with the smallest expected squared error."""
    for shift, var, count in ((1.0, 3.0, 5), (0.5, 4.0, 16), (-2.0, 1.0, 8), (0.3, 0.09, 3)):
        answer = float(best_share(shift, var, count))
        noise = var / count
        expected = shift**2 / (shift**2 + noise)
        if near(answer, expected):
            continue
        if near(answer, 1 - expected):
            raise Wrong("this is the share of the source; α is that of the batch")
        if near(answer, shift**2 / (shift**2 + var)):
            raise Wrong("this is right for a single image; the mean of `count` images varies less")
        if near(answer, abs(shift) / (abs(shift) + noise**0.5)) or near(answer, shift / (shift + noise**0.5)):
            raise Wrong("these are standard deviations; expected squared errors add up as squares")
        if near(answer, max(0.0, 1 - noise / shift**2)):
            raise Wrong(
                "close: this is what James and Stein do when the shift must be estimated; here you know it exactly"
            )
        if near(answer, expected, 0.02):
            raise Wrong(
                f"close, but not the minimum: α = {expected:.5f} for shift {shift}, variance {var} and {count} images, and "
                f"yours is {answer:.5f}. A search stops at its grid; set the derivative to zero instead"
            )
        raise Wrong(
            f"for shift {shift}, variance {var} and {count} images the smallest error is at α = {expected:.3f}; yours is "
            f"{answer:.3f}. Write the error as (1 − α)² · … + α² · …, and set its derivative to zero"
        )
    if not near(float(best_share(0.0, 1.0, 8)), 0.0):
        raise Wrong("without a shift the source's mean is exact: α must be 0")


@checker("ex05_3")
def ex05_3(normalise_groups):
    """`normalise_groups(x, groups, eps) -> y`: each image by the moments of its own group."""
    generator = torch.Generator().manual_seed(53)
    groups = torch.tensor([0, 1, 0, 2, 1, 0])
    x = torch.randn(6, 3, 4, 5, generator=generator) * 2 + groups.view(-1, 1, 1, 1)
    y = torch.as_tensor(normalise_groups(x, groups, 0.1))
    if y.shape != x.shape:
        raise Wrong(f"the answer must have the shape of x, {tuple(x.shape)}; it has {tuple(y.shape)}")
    expected, singles, unbiased, plain, without = (torch.empty_like(x) for _ in range(5))
    for i, group in enumerate(groups):
        pot = x[groups == group].transpose(0, 1).flatten(1)
        mean, var = pot.mean(1).view(-1, 1, 1), pot.var(1, correction=0).view(-1, 1, 1)
        expected[i] = (x[i] - mean) / (var + 0.1).sqrt()
        plain[i] = (x[i] - mean) / (var.sqrt() + 0.1)
        without[i] = (x[i] - mean) / var.sqrt()
        unbiased[i] = (x[i] - mean) / (pot.var(1).view(-1, 1, 1) + 0.1).sqrt()
        singles[i] = (x[i] - x[i].mean((1, 2), keepdim=True)) / (
            x[i].var((1, 2), correction=0, keepdim=True) + 0.1
        ).sqrt()
    if close(y, expected):
        return
    if close(y, torch.nn.functional.batch_norm(x, None, None, training=True, eps=0.1)):
        raise Wrong("these are the moments of the whole batch: the groups see one another")
    if close(y, singles):
        raise Wrong("these are the moments of single images, as InstanceNorm takes them; pool the images of a group")
    if close(y, unbiased):
        raise Wrong("BatchNorm divides by the biased variance: correction=0")
    if close(y, plain):
        raise Wrong("ε is added to the variance, under the root")
    if torch.allclose(y, without, atol=1e-4):  # so is PyTorch's usual 1e-5
        raise Wrong("the argument `eps` is not used: the root is that of variance + eps, and here eps is 0.1")
    if sorted(y.flatten().tolist()) == sorted(expected.flatten().tolist()) or close(
        y, torch.cat([expected[groups == g] for g in range(3)])
    ):
        raise Wrong("the values are right, their order is not: image i of the answer is image i of x")
    raise Wrong("take mean and variance over the images, rows and columns of one group, channel by channel")


@cache
def _channel_means() -> dict[str, torch.Tensor]:
    """What the first BatchNorm layer sees of crops: the mean of each channel over each image, (N, C), in the source's units."""
    model, (images, _, _) = source_model(), tinyshift("source/test")
    layer, first = next(iter(batchnorm_layers(model).values())), model.get_submodule("features.0")
    assert layer.running_mean is not None and layer.running_var is not None
    mean, std = layer.running_mean, layer.running_var.sqrt()
    light = {"source": images, "light haze": distort(images, "haze", 0.2)}
    light |= {kind: distort(images, kind, 0.5) for kind in ("haze", "dark")}
    with torch.no_grad():
        seen = {name: first((x - model.mean) / model.std).mean((2, 3)) for name, x in light.items()}
    return {name: (m - mean) / std for name, m in seen.items()}


@checker("ex05_4")
def ex05_4(would_remeasure):
    """`would_remeasure(folder, home) -> bool`: does a folder lie farther out than chance would put one of its size?"""
    generator, means = torch.Generator().manual_seed(54), _channel_means()
    home, rest = means["source"][::2], slice(1, None, 2)

    def draw(pictures, count):
        return pictures[torch.randperm(len(pictures), generator=generator)[:count]]

    def distance(folder):
        return float(folder.mean(0).abs().mean())

    chance = {n: torch.tensor([distance(draw(home, n)) for _ in range(400)]) for n in (2, 8, 32, 100)}

    def find(light, count, far, least=0.0):
        """A folder that lies clearly beyond chance, or clearly within it."""
        while True:
            folder = draw(means[light][rest], count)
            beyond = float((chance[count] >= distance(folder)).float().mean())
            if (beyond == 0 if far else beyond > 0.15) and distance(folder) > least:
                return folder

    hazy = find("haze", 32, far=True)
    answers = {}
    for name, folder in {
        "32 in haze": hazy,
        "32 in the dark": find("dark", 32, far=True),
        "32 of the source's kind": find("source", 32, far=False),
        "two of the source's kind": find("source", 2, far=False, least=distance(hazy)),
        "eight of the source's kind": find("source", 8, far=False, least=0.115),
        "100 in a light haze": find("light haze", 100, far=True),
        "two in haze": find("haze", 2, far=False),
    }.items():
        answer = would_remeasure(folder, home)
        answers[name] = yes_or_no(answer)
    if not any(answers.values()):
        raise Wrong(
            "you would never re-measure, not even 32 pictures in haze: the mean over many pictures varies far less than a single "
            "picture does, so compare with folders of 32"
        )
    if answers["32 of the source's kind"]:
        raise Wrong(
            "you would re-measure 32 pictures of the source's own kind: no folder lies exactly where the layer remembers, so ask "
            "how far off folders of this size from `home` lie"
        )
    if answers["two of the source's kind"]:
        raise Wrong(
            "you would re-measure two pictures of the source's kind. They lie farther out than the 32 in haze, yet two pictures "
            "drawn from `home` often do: compare with folders of the *same* size"
        )
    for folder in ("32 in haze", "32 in the dark", "100 in a light haze"):
        if not answers[folder]:
            raise Wrong(
                f"{folder} lie farther out than any of 400 such folders drawn from `home`, and you would leave them"
            )
    if answers["eight of the source's kind"]:
        raise Wrong(
            "you would re-measure eight pictures of the source's kind, which lie no farther out than many eights of `home`: no "
            "fixed line will do, it depends on how many pictures there are"
        )
    if answers["two in haze"]:
        raise Wrong(
            "you would re-measure two pictures in haze; by their number alone they cannot be told from two of `home`, and "
            "re-measuring on two pictures is dear"
        )
