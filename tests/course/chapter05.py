"""Chapter 5: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

from tta_iqa_lib.batchnorm import Moments, blend


def mix_reference(ms, vs, mt, vt, a):
    mean = (1 - a) * ms + a * mt
    return mean, (1 - a) * (vs + (ms - mean) ** 2) + a * (vt + (mt - mean) ** 2)


def mix_by_second_moments(ms, vs, mt, vt, a):
    mean = ms + a * (mt - ms)
    return mean, (1 - a) * (vs + ms**2) + a * (vt + mt**2) - mean**2


def mix_in_place(ms, vs, mt, vt, a):
    mean, var = mix_reference(ms, vs, mt, vt, a)
    ms.copy_(mean)
    return mean, var


EX05_WRONG = {
    "misses the spread": lambda ms, vs, mt, vt, a: ((1 - a) * ms + a * mt, (1 - a) * vs + a * vt),
    "weights are swapped": lambda ms, vs, mt, vt, a: mix_reference(ms, vs, mt, vt, 1 - a),
    "standard deviation": lambda ms, vs, mt, vt, a: (
        mix_reference(ms, vs, mt, vt, a)[0],
        mix_reference(ms, vs, mt, vt, a)[1].sqrt(),
    ),
    "changed its inputs": mix_in_place,
    "the variance is not": lambda ms, vs, mt, vt, a: (
        mix_reference(ms, vs, mt, vt, a)[0],
        (1 - a) * vs + a * vt + (ms - mt) ** 2,
    ),
    "mean is not": lambda ms, vs, mt, vt, a: (ms + mt, vs + vt),
    "alpha = 0": lambda ms, vs, mt, vt, a: mix_reference(ms, vs, mt, vt, 0.25),
}

CASES = {
    "ex05_1": (
        [mix_reference, mix_by_second_moments, lambda *a: tuple(blend(Moments(*a[:2]), Moments(*a[2:4]), a[4]))],
        EX05_WRONG,
    ),
}
