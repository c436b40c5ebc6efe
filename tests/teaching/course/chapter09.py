"""Chapter 9: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import numpy as np

import tta_iqa_lib as tta


def p_value(a, b):
    return min(1, 2 * min((a - b <= 0).mean(), (a - b >= 0).mean()))


def uncapped(a, b):
    p = 2 * min((a - b <= 0).mean(), (a - b >= 0).mean())
    return *np.quantile(a - b, [0.025, 0.975]), p


def interval(a, b):
    return *np.quantile(a - b, [0.025, 0.975]), p_value(a, b)


def interval_by_sorting(a, b):
    gaps = sorted(x - y for x, y in zip(a, b, strict=True))
    count = len(gaps)
    rarer = min(sum(gap < 0 for gap in gaps), sum(gap > 0 for gap in gaps))
    return [gaps[round(0.025 * count)], gaps[round(0.975 * count) - 1], min(1, 2 * (1 + rarer) / (1 + count))]


def ends(function):
    return lambda a, b: (*function(a, b), p_value(a, b))


EX09_1_WRONG = {
    "B minus A": lambda a, b: interval(b, a),
    "does not cancel": ends(lambda a, b: np.subtract(interval(a, 0), interval(b, 0))[:2]),
    "sorted before": ends(lambda a, b: interval(np.sort(a), np.sort(b))[:2]),
    "90 % interval": ends(lambda a, b: np.quantile(a - b, [0.05, 0.95])),
    "shrinks with the number": ends(lambda a, b: (a - b).mean() + 1.96 * (a - b).std() / 20 * np.array([-1, 1])),
    "lower end": ends(lambda a, b: interval(a, b)[1::-1]),
    "Gaussian differences only": ends(lambda a, b: (a - b).mean() + 1.96 * (a - b).std() * np.array([-1, 1])),
    "draw by draw": ends(lambda a, b: ((a - b).min(), (a - b).max())),
    "three numbers": lambda a, b: interval(a, b)[:2],
    "one side": lambda a, b: (*interval(a, b)[:2], (a <= b).mean()),
    "never above 1": lambda a, b: (*interval(a, b)[:2], min(1, 2 * (a > b).mean())),
    "which side is rarer": lambda a, b: (*interval(a, b)[:2], min(1, 2 * (a <= b).mean())),
    "p comes out above 1": uncapped,
    "rarer side of zero": lambda a, b: (*interval(a, b)[:2], 0.05),
}


def share(means, mean, var):
    if len(means) == 1:
        return 0.0
    noise = (means.var(0) / len(means) / var).mean()
    return (1 - noise / ((means.mean(0) - mean) ** 2 / var).mean()).clamp(0, 1)


def share_in_numpy(means, mean, var):
    x, mean, var = (np.asarray(t) for t in (means, mean, var))
    distance = np.mean((x.mean(0) - mean) ** 2 / var)
    if len(x) < 2 or distance == 0:
        return 0.0
    return max(0.0, 1 - np.mean(x.var(0, ddof=1) / len(x) / var) / distance)


def _parts(means, mean, var):
    return (means.mean(0) - mean) ** 2 / var, means.var(0) / var


EX09_2_WRONG = {
    "not from zero": lambda m, mean, var: share(m, 0 * mean, var),
    "share of the source": lambda *a: 1 - share(*a),
    "spread of single images": lambda *a: (1 - _parts(*a)[1].mean() / _parts(*a)[0].mean()).clamp(0, 1),
    "channels first": lambda *a: (1 - _parts(*a)[1] / 12 / _parts(*a)[0]).clamp(0, 1).mean(),
    "units": lambda m, mean, var: (1 - m.var(0).mean() / 12 / ((m.mean(0) - mean) ** 2).mean()).clamp(0, 1),
    "divides by 11": lambda m, mean, var: (
        1 - (m.var(0, correction=0) / len(m) / var).mean() / ((m.mean(0) - mean) ** 2 / var).mean()
    ),
    "κ is 1.5": lambda *a: (1 - 1.5 * (1 - share(*a))).clamp_min(0) if len(a[0]) > 1 else 0.0,
    "extra factor": lambda *a: (1 - (1 + 6 / 11) * (1 - share(*a))).clamp_min(0) if len(a[0]) > 1 else 0.0,
    "no shift": lambda m, mean, var: 1 - (m.var(0) / len(m) / var).mean() / ((m.mean(0) - mean) ** 2 / var).mean(),
    "single image": lambda m, mean, var: 1.0 if len(m) == 1 else share(m, mean, var),
}


def draws(a, b, quality, groups, paired=True):
    """Of the difference in SRCC, 300 draws of whole groups; or of each by itself."""
    rows = list(tta.metrics.resamples(len(quality), groups, 300))
    of = [np.array([tta.srcc(np.array(scores)[r], quality[r]) for r in rows]) for scores in (a, b)]
    return of[0] - of[1] if paired else of


def judged(low, high):
    return "gain" if low > 0 else "loss" if high < 0 else "cannot tell"


def verdict(adapter, images, quality, contents):
    control = tta.Adapter(adapter.model, losses=(), statistics=adapter.recipe.inference.statistics)
    return judged(*np.quantile(draws(adapter(images), control(images), quality, contents), [0.025, 0.975]))


def verdict_from_one_run(adapter, images, quality, contents):
    """The scores under the statistics, before any step, are the control's."""
    result = adapter.run(images)
    found = np.sort(draws(result.scores, result.initial_scores, quality, contents))
    return judged(found[7], found[-8])


def verdict_by_image(adapter, images, quality, contents):
    return verdict_from_one_run(adapter, images, quality, None)


def verdict_over_the_source(adapter, images, quality, contents):
    result = adapter.run(images)
    return judged(*np.quantile(draws(result.scores, result.source_scores, quality, contents), [0.025, 0.975]))


def verdict_unpaired(adapter, images, quality, contents):
    """Other draws for the control: what both scores have in common no longer cancels."""
    result = adapter.run(images)
    a, b = draws(result.scores, result.initial_scores, quality, contents, paired=False)
    return judged(*np.quantile(a - np.random.default_rng(5).permutation(b), [0.025, 0.975]))


def verdict_of_overlap(adapter, images, quality, contents):
    """Two intervals that overlap say little about the difference: never a gain here."""
    result = adapter.run(images)
    a, b = draws(result.scores, result.initial_scores, quality, contents, paired=False)
    return "gain" if a.min() > b.max() else "loss" if a.max() < b.min() else "cannot tell"


EX09_3_WRONG = {
    "the statistics'": verdict_over_the_source,
    "not ninety-six": verdict_by_image,
    "clearly better": verdict_of_overlap,
    "same rows of each draw": verdict_unpaired,
    "turns down the one channel": lambda *a: {"loss": "cannot tell"}.get(verdict(*a), verdict(*a)),
    "the answers are": lambda *a: 0.03,
}

CASES = {
    "ex09_1": ([interval, interval_by_sorting], EX09_1_WRONG),
    "ex09_2": ([share, share_in_numpy], EX09_2_WRONG),
    "ex09_3": ([verdict, verdict_from_one_run], EX09_3_WRONG),
}
