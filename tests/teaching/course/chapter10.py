"""Chapter 10: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import numpy as np
import torch

import tta_iqa_lib as tta


def calibrate_in_place(ratios, share):
    ratios.sort()
    return ratios[-round(share * len(ratios))]


EX10_1_WRONG = {
    "changed its inputs": calibrate_in_place,
    "wrong end": lambda r, share: np.quantile(r, share),
    "not Gaussian": lambda r, share: r.mean() + 1.645 * r.std(),
    "no alarm": lambda r, share: r.max() + 1,
    "were asked for": lambda r, share: np.quantile(r, 1 - share / 2),
    "second argument": lambda r, share: np.quantile(r, 0.95),
}


def first_layer(model, images):
    """The ratios of means and variances; none for a batch that is too small."""
    if len(images) < 4:
        return 0.0, 0.0
    shift = tta.Adapter(model).run(images).shift
    return tuple(distance / noise for distance, noise in next(iter(shift.values())))


def said(means, variances):
    return "adapt" if means >= 10 else "look" if variances >= 10 else "leave"


def advise(model, images, cameras, ratios=first_layer, answer=said):
    cameras = np.array(cameras)
    return {str(c): answer(*ratios(model, images[torch.tensor(cameras == c)])) for c in np.unique(cameras)}


def advise_by_hand(model, images, cameras):
    """The ratios from the activations, as the chapter writes them."""
    answers = {}
    for camera in set(cameras):
        rows = [i for i, c in enumerate(cameras) if c == camera]
        answers[camera] = "leave"
        if len(rows) >= 4:
            with torch.no_grad():
                x = model.features[0]((images[rows] - model.mean) / model.std)
            source = tta.adaptation.Moments(model.features[1].running_mean, model.features[1].running_var)
            measured = tta.adaptation.measure(x)
            means, variances = (
                float(distance[0] / noise[0])
                for distance, noise in (
                    tta.adaptation.mean_shift(source, measured),
                    tta.adaptation.variance_shift(source, measured),
                )
            )
            answers[camera] = said(means, variances)
    return answers


def all_together(model, images, cameras):
    return dict.fromkeys(cameras, said(*first_layer(model, images)))


def by_the_last_layer(model, images):
    shift = list(tta.Adapter(model).run(images).shift.values())
    return tuple(distance / noise for distance, noise in shift[-1]) if len(images) > 3 else (0.0, 0.0)


def by_hand_from_two(model, images):
    gate = tta.ShiftGate(min_images=2)
    shift = tta.Adapter(model, losses=(), statistics=tta.Source(), gate=gate).run(images).shift
    return tuple(distance / noise for distance, noise in next(iter(shift.values())))


EX10_2_WRONG = {
    "one answer": all_together,
    "not one to leave": lambda *a: advise(*a, answer=lambda m, v: "adapt" if m >= 10 else "leave"),
    "a case to look at": lambda *a: advise(*a, answer=lambda m, v: "adapt" if max(m, v) >= 10 else "leave"),
    "three pictures": lambda *a: advise(*a, ratios=by_hand_from_two),
    "ratios are near 1": lambda *a: advise(
        *a, answer=lambda m, v: "adapt" if m >= 10 else "look" if v >= 0.2 else "leave"
    ),
    "films at dusk": lambda *a: advise(*a, answer=lambda m, v: "look" if max(m, v) >= 10 else "leave"),
    "an answer for each camera": lambda *a: list(advise(*a).values()),
    "the answers are": lambda *a: advise(*a, answer=lambda m, v: bool(m >= 10)),
}


def chance(means, pictures):
    own = np.array([means[pictures == p].mean(0) for p in np.unique(pictures)])
    return own.var(0, ddof=1) / len(own)


def chance_in_torch(means, pictures):
    _, place = torch.unique(torch.as_tensor(pictures), return_inverse=True)
    total = torch.zeros(int(place.max()) + 1, means.shape[1], dtype=torch.float64)
    own = total.index_add(0, place, torch.as_tensor(means)) / torch.bincount(place)[:, None]
    return own.var(0) / len(own)


def own_means(means, pictures):
    return np.array([means[pictures == p].mean(0) for p in np.unique(pictures)])


EX10_3_WRONG = {
    "20 witnesses": lambda m, p: m.var(0, ddof=1) / len(m),
    "5 of them": lambda m, p: own_means(m, p).var(0, ddof=1) / len(m),
    "one less": lambda m, p: own_means(m, p).var(0) / 5,
    "single pictures": lambda m, p: own_means(m, p).var(0, ddof=1),
    "average the crops": lambda m, p: np.mean([m[p == q].var(0, ddof=1) / 4 for q in np.unique(p)], 0),
    "side by side": lambda m, p: m.reshape(5, 4, -1).mean(1).var(0, ddof=1) / 5,
    "one number a channel": lambda m, p: float(chance(m, p).mean()),
}

CASES = {
    "ex10_1": ([lambda r, s: np.quantile(r, 1 - s), lambda r, s: np.sort(r)[-round(s * len(r))]], EX10_1_WRONG),
    "ex10_2": ([advise, advise_by_hand], EX10_2_WRONG),
    "ex10_3": ([chance, chance_in_torch], EX10_3_WRONG),
}
