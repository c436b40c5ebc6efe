"""Chapter 9: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import numpy as np


def p_value(a, b):
    return 2 * min((a - b <= 0).mean(), (a - b >= 0).mean())


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


def report(table, development):
    best = max(table, key=lambda name: table[name][development])
    return best, np.mean([value for target, value in table[best].items() if target != development])


def report_by_sorting(table, development):
    ranked = sorted(table.items(), key=lambda item: -item[1][development])
    name, row = ranked[0]
    others = set(row) - {development}
    return [name, sum(row[target] for target in others) / len(others)]


def best_on_the_others(table, development):
    best = max(table, key=lambda name: sum(v for t, v in table[name].items() if t != development))
    return best, report({best: table[best]}, development)[1]


def others(table, development):
    name = report(table, development)[0]
    return name, [value for target, value in table[name].items() if target != development]


def report_with(summary):
    def answer(table, development):
        name, values = others(table, development)
        return name, summary(values)

    return answer


EX09_3_WRONG = {
    "the median": report_with(np.median),
    "middle of the range": report_with(lambda values: (min(values) + max(values)) / 2),
    "the worst": report_with(min),
    "the best of": report_with(max),
    "flatters you": best_on_the_others,
    "highest SRCC": lambda table, d: report({"lr 1e-4": table["lr 1e-4"]}, d),
    "cannot judge": lambda table, d: (report(table, d)[0], np.mean(list(table[report(table, d)[0]].values()))),
    "nobody could know": lambda table, d: (
        report(table, d)[0],
        np.mean([max(row[t] for row in table.values()) for t in table[report(table, d)[0]] if t != d]),
    ),
    "report the others": lambda table, d: (report(table, d)[0], table[report(table, d)[0]][d]),
    "two things": lambda table, d: report(table, d)[1],
}

CASES = {
    "ex09_1": ([interval, interval_by_sorting], EX09_1_WRONG),
    "ex09_2": ([share, share_in_numpy], EX09_2_WRONG),
    "ex09_3": ([report, report_by_sorting], EX09_3_WRONG),
}
