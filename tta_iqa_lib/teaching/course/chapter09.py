"""Chapter 9, a fair experiment: its checkers."""

import numpy as np
import torch

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


@checker("ex09_2")
def ex09_2(share):
    """`share(image_means, source_mean, source_var) -> α`: the positive-part rule of James and Stein."""
    generator = torch.Generator().manual_seed(92)
    source_mean, source_var = torch.zeros(6), torch.linspace(0.5, 3, 6)
    means = 1.0 + torch.randn(12, 6, generator=generator) * source_var.sqrt()
    answer = float(share(means, source_mean, source_var))
    distance = (means.mean(0) - source_mean) ** 2 / source_var
    spread = means.var(0) / source_var
    expected = float((1 - spread.mean() / 12 / distance.mean()).clamp(0, 1))
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
    if float(share(means - means.mean(0), source_mean, source_var)) != 0:
        raise Wrong("with no shift at all α must be 0, not negative and not NaN")
    alone = float(share(means[:1], source_mean, source_var))
    if alone != 0:
        raise Wrong(f"a single image tells nothing about its own error: α must be 0; yours is {alone}")


@checker("ex09_3")
def ex09_3(report):
    """`report(table, development) -> (setting, mean SRCC)`: chosen on one target, reported on the others."""
    table = {
        "lr 1e-4": {"dusk": 0.70, "haze": 0.66, "cast": 0.61, "dark": 0.50},
        "lr 1e-3": {"dusk": 0.74, "haze": 0.60, "cast": 0.62, "dark": 0.40},
        "lr 1e-2": {"dusk": 0.60, "haze": 0.72, "cast": 0.64, "dark": 0.55},
    }
    answer = report(table, "dusk")
    try:
        setting, value = answer
        value = float(value)
    except (TypeError, ValueError):
        raise Wrong("return two things: the name of the setting, and its mean SRCC") from None
    if setting == "lr 1e-2":
        raise Wrong("this setting was chosen by the targets that you report: the number flatters you")
    if setting != "lr 1e-3":
        raise Wrong("choose the setting with the highest SRCC on the development target")
    if near(value, (0.74 + 0.60 + 0.62 + 0.40) / 4):
        raise Wrong("the development target is in the mean; it was used to choose, so it cannot judge")
    if near(value, (0.72 + 0.64 + 0.55) / 3):
        raise Wrong("this is the best setting of each target; nobody could know it beforehand")
    if near(value, 0.74):
        raise Wrong("this is the SRCC on the development target itself; report the others")
    for wrong, name in ((0.60, "median"), (0.51, "middle of the range"), (0.40, "worst"), (0.62, "best")):
        if near(value, wrong):
            raise Wrong(f"this is the {name} of the other targets' SRCC; the mean is asked for")
    if not near(value, 0.54):
        raise Wrong(f"the mean over the other three targets is .54; yours is {value:.3f}")
    if report({"only": {"a": 0.5, "b": 0.7, "c": 0.1}}, "c")[0] != "only":
        raise Wrong("the development target is the second argument, not always 'dusk'")
