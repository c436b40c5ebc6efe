"""Chapter 9, a fair experiment: its checkers."""

import numpy as np
import torch
from torch import nn

from ...adaptation.adapter import Adapter
from ...adaptation.rules import Batch
from ...models.quality import QualityModel
from .checker import Wrong, checker, near


@checker("ex09_1")
def ex09_1(interval):
    """`interval(draws_a, draws_b) -> (low, high, p)`: 95 % interval and two-sided p-value of a paired difference."""
    generator = np.random.default_rng(91)
    common = generator.normal(0, 0.1, 400)  # what is hard for one method is hard for the other
    a = 0.7 + common - generator.exponential(0.014, 400)  # a difference is seldom Gaussian
    b = 0.68 + common
    answer = [float(v) for v in interval(a, b)]
    if len(answer) != 3:
        raise Wrong(f"three numbers are asked for, (low, high, p); got {len(answer)}")
    low, high, p = answer
    expected = np.quantile(a - b, [0.025, 0.975])
    ends = [np.quantile(x, [0.025, 0.975]) for x in (a, b)]
    if near((low, high), -expected[::-1]):
        raise Wrong("this is B minus A; the difference asked for is A minus B")
    if near((low, high), ends[0] - ends[1]) or near((low, high), (ends[0][0] - ends[1][1], ends[0][1] - ends[1][0])):
        raise Wrong("these are two intervals subtracted; what both methods share does not cancel that way")
    if low > high:
        raise Wrong("the lower end comes first")
    if near((low, high), np.quantile(np.sort(a) - np.sort(b), [0.025, 0.975])):
        raise Wrong("the draws were sorted before they were paired: draw i of A belongs to draw i of B")
    if near((low, high), np.quantile(a - b, [0.05, 0.95])):
        raise Wrong("this is a 90 % interval: 95 % leaves 2.5 % at each end")
    half = 1.96 * (a - b).std() / np.sqrt(len(a))
    if near((low, high), ((a - b).mean() - half, (a - b).mean() + half), 2e-3):
        raise Wrong("this interval shrinks with the number of draws; more draws do not make more images")
    normal = (a - b).mean() + np.array([-1.96, 1.96]) * (a - b).std()
    if near((low, high), normal, 1e-3):
        raise Wrong("mean ± 1.96 deviations is right for Gaussian differences only; take the draws' own quantiles")
    if not near((low, high), expected, 2e-3):
        raise Wrong("take the difference draw by draw, then its 2.5 % and 97.5 % quantiles")
    below = float((a - b <= 0).mean())
    if near(p, below, 1e-3) or near(p, 1 - below, 1e-3):
        raise Wrong(
            "this p-value looks at one side; the question is two-sided: twice the share on the rarer side of zero"
        )
    if near(p, 2 * (1 - below), 1e-3) or near(p, 1.0):
        raise Wrong("take the *rarer* side of zero, whichever that is; a p-value is never above 1")
    if not near(p, 2 * min(below, 1 - below), 6e-3):  # a draw is sometimes counted in
        raise Wrong(
            f"p is twice the share of the draws on the rarer side of zero, {2 * min(below, 1 - below):.3f}; got {p:.3f}"
        )
    mirrored = float(interval(b, a)[2])
    if not near(mirrored, p, 6e-3):
        raise Wrong(
            f"B minus A must have the p-value of A minus B, {p:.3f}; yours has {mirrored:.3f}: which side is rarer?"
        )
    if float(interval(a, a)[2]) > 1:
        raise Wrong("for two methods that are the same, p comes out above 1; a p-value is never above 1")


@checker("ex09_2")
def ex09_2(share):
    """`share(image_means, source_mean, source_var) -> α`: the positive-part rule of James and Stein."""
    generator = torch.Generator().manual_seed(92)
    source_mean, source_var = torch.linspace(-1, 1, 6), torch.linspace(0.5, 3, 6)
    means = source_mean + 1.0 + torch.randn(12, 6, generator=generator) * source_var.sqrt()
    answer = float(share(means, source_mean, source_var))
    distance = (means.mean(0) - source_mean) ** 2 / source_var
    spread = means.var(0) / source_var
    expected = float((1 - spread.mean() / 12 / distance.mean()).clamp(0, 1))
    from_zero = means.mean(0) ** 2 / source_var
    if near(answer, float((1 - spread.mean() / 12 / from_zero.mean()).clamp(0, 1))):
        raise Wrong("the shift is the distance from the source's mean, not from zero")
    if near(answer, 1 - expected):
        raise Wrong("this is the share of the source; α is that of the batch")
    if near(answer, float((1 - spread.mean() / distance.mean()).clamp(0, 1))):
        raise Wrong("this is the spread of single images; the mean of B images is B times more certain, as a variance")
    if near(answer, float((1 - spread / 12 / distance).clamp(0, 1).mean())):
        raise Wrong("average over the channels first, then divide: single channels are too noisy")
    if near(answer, float((1 - means.var(0, correction=0).div(source_var).mean() / 12 / distance.mean()).clamp(0, 1))):
        raise Wrong("the variance over 12 images divides by 11: `var(0)`, and not `correction=0`")
    unscaled = (means.mean(0) - source_mean) ** 2
    if near(answer, float((1 - means.var(0).mean() / 12 / unscaled.mean()).clamp(0, 1))):
        raise Wrong("measure both in units of the source's variance: else loud channels decide alone")
    ratio = float(spread.mean() / 12 / distance.mean())
    if near(answer, max(0.0, 1 - 1.5 * ratio)):
        raise Wrong("κ is 1.5 here, as in the recipe; the exercise asks for κ = 1")
    if near(answer, max(0.0, 1 - (1 + 6 / 11) * ratio)) or near(answer, max(0.0, 1 - 1.5 * (1 + 6 / 11) * ratio)):
        raise Wrong("this holds the extra factor for small batches, 1 + 6 / (B − 1); the exercise leaves it out")
    if not near(answer, expected, 1e-3):
        raise Wrong(f"for 12 images of 6 channels α should be {expected:.3f}; yours is {answer:.3f}")
    if abs(float(share(means - means.mean(0) + source_mean, source_mean, source_var))) > 1e-6:
        raise Wrong("with no shift at all α must be 0, not negative and not NaN")
    alone = float(share(means[:1], source_mean, source_var))
    if alone != 0:
        raise Wrong(f"a single image tells nothing about its own error: α must be 0; yours is {alone}")


@checker("ex09_3")
def ex09_3(verdict):
    """`verdict(adapter, images, quality, contents) -> "gain", "loss" or "cannot tell"`: of the loss, over its matched control."""
    generator = np.random.default_rng(93)
    contents = np.repeat(np.arange(12), 8)
    red, green, blue = generator.normal(0.5, 0.1, (3, 96))
    quality = red + 0.05 * generator.normal(size=96)

    def asked(pull, loud=1.0, green=green, quality=quality, lr=0.25):
        """Of a loss that turns each channel down, or up where `pull` is below zero."""
        pixels = torch.tensor(np.stack([red, green, blue], 1).clip(0, 1), dtype=torch.float32)
        weights = torch.tensor(pull)

        def loss(context):
            return (context.features["clean"].square().mean(0) * weights).sum()

        adapter = Adapter(_scorer(loud), losses=[loss], statistics=Batch(), lr=lr)
        images = pixels[:, :, None, None].expand(-1, -1, 4, 4).contiguous()
        return verdict(adapter, images, quality, contents)

    answer = asked([-1.0, 1.0, 1.0])
    if not (isinstance(answer, str) and answer in ("gain", "loss", "cannot tell")):
        raise Wrong(f"the answers are 'gain', 'loss' and 'cannot tell'; got {answer!r}")
    if answer != "gain":
        raise Wrong(
            "this loss turns down the two channels that do not matter, and the order gets clearly better: a gain"
        )
    if asked([1.0, -1.0, -1.0]) != "loss":
        raise Wrong("this loss turns down the one channel that matters: below its control, and clearly so")
    if asked([-1.0, 1.0, 1.0], lr=0.05) != "gain":
        raise Wrong(
            "a small gain, but in nearly every draw: give the adapter and its control the same rows of each draw"
        )
    if asked([0.0, 0.0, 0.0], loud=8.0) != "cannot tell":
        raise Wrong(
            "this loss does nothing: the gain over the source is the statistics'. Compare with the matched control"
        )
    of_content, other = generator.normal(size=(2, 12))
    of_content, other = ((part - part.mean()) / part.std() for part in (of_content, other))
    other -= of_content * (other @ of_content) / 12
    lucky = 0.5 + 0.1 * (0.75 * of_content + 0.66 * other / other.std())[contents]
    if asked([0.0, -1.0, 0.0], 1.0, lucky, quality + 0.12 * of_content[contents], 0.15) != "cannot tell":
        raise Wrong("twelve contents are twelve witnesses, not ninety-six: draw contents, and the interval holds zero")


class _Channels(nn.Module):
    """The mean of each colour, normalised: (B, 3, H, W) → (B, 3)."""

    def __init__(self, variance: torch.Tensor):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_mean = torch.full((3,), 0.5)
        self.norm.running_var = variance

    def forward(self, x):
        return self.norm(x.mean((2, 3), keepdim=True)).flatten(1)


def _scorer(loud: float) -> QualityModel:
    """The sum of the three channels; blue counts `loud` times too much under the source's moments."""
    with torch.random.fork_rng(devices=[]):  # a new layer draws from the reader's generator
        regressor = nn.Linear(3, 1)
    nn.init.ones_(regressor.weight)
    nn.init.zeros_(regressor.bias)
    features = _Channels(0.01 * torch.tensor([1.0, 1.0, loud**-2]))
    return QualityModel(features, regressor, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).eval()
