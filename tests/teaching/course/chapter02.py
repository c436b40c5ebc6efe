"""Chapter 2: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

from functools import partial
from itertools import pairwise

import numpy as np
import torch
from scipy.fft import dctn, idctn

from tta_iqa_lib.imaging.distortions import _quantise, dct_matrix


def column(values):
    return values.view(-1, 1, 1, 1)


def white(images, generator):
    return torch.randn(images.shape, generator=generator, dtype=images.dtype)


def noise_at(images, psnr, generator):
    noise = white(images, generator)
    return images + 10 ** (-column(psnr) / 20) * noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt()


def noise_in_a_loop(images, psnr, generator):
    made = []
    for image, decibels in zip(images, psnr, strict=True):
        noise = torch.randn(image.shape, generator=generator)
        made.append(image + noise * ((10 ** (-decibels / 10)) / (noise**2).mean()) ** 0.5)
    return torch.stack(made).numpy()


def flat_noise(images, psnr, generator):
    noise = torch.rand(images.shape, generator=generator, dtype=images.dtype) - 0.5
    return images + 10 ** (-column(psnr) / 20) * noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt()


def over_the_batch(images, psnr, generator):
    noise = 10 ** (-column(psnr) / 20) * white(images, generator)
    return images + noise * ((10 ** (-psnr / 10)).mean() / noise.square().mean()).sqrt()


def grey_noise(images, psnr, generator):
    noise = white(images[:, :1], generator)
    return images + 10 ** (-column(psnr) / 20) * noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt()


def with_scale(images, psnr, noise):
    return images + 10 ** (-column(psnr) / 20) * noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt()


EX02_1_WRONG = {
    "another generator": lambda x, p, g: noise_at(x, p, torch.Generator().manual_seed(0)),
    "each row": lambda x, p, g: with_scale(x, p, white(x[:, :, :1], g).expand_as(x)),
    "each column": lambda x, p, g: with_scale(x, p, white(x[..., :1], g).expand_as(x)),
    "each image": lambda x, p, g: with_scale(x, p, white(x[:1], g).expand_as(x)),
    "draw a number for each value": lambda x, p, g: with_scale(x, p, (n := white(x, g)) + n.roll(1, 3)),
    "right only on average": lambda x, p, g: x + 10 ** (-column(p) / 20) * white(x, g),
    "by the MSE": lambda x, p, g: x + 10 ** (-column(p) / 10) * white(x, g),
    "too strong": lambda x, p, g: x + 10 ** (-column(p) / 40) * white(x, g),
    "clipped": lambda x, p, g: noise_at(x, p, g).clamp(0, 1),
    "over the whole batch": over_the_batch,
    "other noise": lambda x, p, g: noise_at(x, p, None),
    "not Gaussian": flat_noise,
    "noise of its own": grey_noise,
    "changed its inputs": lambda x, p, g: x.copy_(noise_at(x, p, g)),
    "has shape": lambda x, p, g: noise_at(x, p, g)[0],
}


def to_blocks(planes):
    b, h, w = planes.shape
    return planes.reshape(b, h // 8, 8, w // 8, 8).transpose(2, 3)


def from_blocks(blocks):
    b, rows, columns = blocks.shape[:3]
    return blocks.transpose(2, 3).reshape(b, 8 * rows, 8 * columns)


def change(planes, tables, way=torch.round, multiply=True, home=True):
    matrix, table = dct_matrix(planes), tables[:, None, None]
    frequencies = way(matrix @ to_blocks(planes) @ matrix.T / table)
    frequencies = frequencies * table if multiply else frequencies
    return matrix.T @ frequencies @ matrix if home else frequencies


def quantise(planes, tables):
    return from_blocks(change(planes, tables))


def quantise_in_scipy(planes, tables):
    blocks, table = to_blocks(planes).numpy(), tables[:, None, None].numpy()
    rounded = np.round(dctn(blocks, axes=(-2, -1), norm="ortho") / table) * table
    return from_blocks(torch.from_numpy(idctn(rounded, axes=(-2, -1), norm="ortho"))).numpy()


def quantise_with_the_chapters_matrix(planes, tables, dtype=torch.float32):
    """With constants of one precision, whatever comes in, as the chapter's `D` is."""
    matrix, table = dct_matrix(torch.zeros(1, dtype=dtype)), tables[:, None, None]
    frequencies = torch.round(matrix @ to_blocks(planes) @ matrix.T / table) * table
    return from_blocks(matrix.T @ frequencies @ matrix)


def noise_by_std(images, psnr, generator):
    noise = white(images, generator)
    return images + 10 ** (-column(psnr) / 20) * noise / noise.std((1, 2, 3), keepdim=True)


EX02_2_WRONG = {
    "nothing has been lost": lambda p, t: from_blocks(change(p, t, way=lambda f: f)),
    "table of the first": lambda p, t: quantise(p, t[:1].expand(3, 8, 8)),
    "rows and columns": lambda p, t: quantise(p, t.transpose(1, 2)),
    "multiply by the table again": lambda p, t: from_blocks(change(p, t, multiply=False)),
    "back in their places": lambda p, t: change(p, t).reshape(p.shape),
    "these are frequencies": lambda p, t: from_blocks(change(p, t, home=False)),
    "8×8 squares": lambda p, t: _quantise(p.reshape(3, 40, 24), t).reshape(p.shape),
    "neither down": lambda p, t: from_blocks(change(p, t, way=torch.floor)),
    "nor towards zero": lambda p, t: from_blocks(change(p, t, way=torch.trunc)),
    "grey levels on average": lambda p, t: quantise(p, 2 * t),
    "changed its inputs": lambda p, t: p.copy_(quantise(p, t)),
}


def severities_for(grid, curves, wanted):
    return [np.interp(q, curve.flip(0), grid.flip(0)) for curve, q in zip(curves, wanted, strict=True)]


def severities_by_search(grid, curves, wanted, ends=True):
    wanted = wanted[:, None]
    if ends:
        wanted = wanted.clamp(curves.amin(1, True), curves.amax(1, True))
    after = torch.searchsorted(-curves.contiguous(), -wanted).clamp(1, len(grid) - 1)
    low, high = curves.gather(1, after - 1), curves.gather(1, after)
    share = (low - wanted) / (low - high)
    return (grid[after - 1] + share * (grid[after] - grid[after - 1]))[:, 0]


def each_with(read):
    return lambda g, cs, ws: [read(g, c, w) for c, w in zip(cs, ws, strict=True)]


EX02_3_WRONG = {
    "the first curve": lambda g, c, w: np.interp(w, c[0].flip(0), g.flip(0)),
    "the mean curve": lambda g, c, w: np.interp(w, c.mean(0).flip(0), g.flip(0)),
    "forwards": each_with(lambda g, c, w: np.interp(w, g, c)),
    "flip both lists": each_with(lambda g, c, w: np.interp(w, c, g)),
    "one list is flipped": each_with(lambda g, c, w: np.interp(w, c.flip(0), g)),
    "interpolate between": each_with(lambda g, c, w: g[(c - w).abs().argmin()]),
    "not evenly spaced": each_with(lambda g, c, w: np.interp(w, c.flip(0), np.linspace(1, 0, len(g)))),
    "nearest end": lambda g, c, w: severities_by_search(g, c, w, ends=False),
    "has shape": lambda g, c, w: severities_for(g, c, w)[0],
    "expected": lambda g, c, w: 1 - w,
}

STEPS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def errors(distortion, images, steps=STEPS, fresh=True):
    """(len(steps), B) squared errors; the generator is a fresh one for each step, or one that goes on."""
    generator, rows = torch.Generator().manual_seed(3), []
    for s in steps:
        made = distortion(images, torch.full((len(images),), s), generator.manual_seed(3) if fresh else generator)
        rows.append((made - images).square().flatten(1).mean(1))
    return torch.stack(rows)


def repeatable(distortion, images, tolerance=0.0, fresh=True, disturbed=True):
    generator, severity = torch.Generator().manual_seed(4), torch.linspace(0.2, 0.9, len(images))
    first = distortion(images, severity, generator)
    if disturbed:
        torch.randn(3)
    else:
        torch.manual_seed(0)
        first = distortion(images, severity, generator.manual_seed(4))
        torch.manual_seed(0)
    again = distortion(images, severity, generator.manual_seed(4) if fresh else generator)
    return bool((first - again).abs().max() <= tolerance)


def judge(distortion, images, growth=1.05, steps=STEPS, reduce=None, least=0.0, **how):
    if not repeatable(distortion, images, **how):
        return "not repeatable"
    found = errors(distortion, images, steps)
    found = found if reduce is None else reduce(found)
    pairs = pairwise(found)
    return "use it" if all((b >= growth * a).all() and (b > least).all() for a, b in pairs) else "severity fails"


def judge_image_by_image(distortion, images):
    """Each image by itself, in NumPy."""
    if not repeatable(distortion, images):
        return "not repeatable"
    for curve in errors(distortion, images).T.numpy():
        if curve[1] <= 0 or any(after < 1.05 * before for before, after in pairwise(curve)):
            return "severity fails"
    return "use it"


EX02_4_WRONG = {
    "fresh generator, same seed": lambda d, x: judge(d, x, fresh=False),
    "global state": lambda d, x: judge(d, x, disturbed=False),
    "bit by bit": lambda d, x: judge(d, x, tolerance=0.05),
    "look at every step": lambda d, x: judge(d, x, steps=(0.0, 1.0)),
    "makes the pictures better": lambda d, x: judge(d, x, steps=STEPS[:-1]),
    "its first step changes nothing": lambda d, x: judge(d, x, least=-1.0),
    "less than 5 % a step": lambda d, x: judge(d, x, growth=1.0001),
    "judge each image": lambda d, x: judge(d, x, reduce=lambda e: e.mean(1)),
    "one of the three verdicts": lambda d, x: judge(d, x) == "use it",
    "should be 'not repeatable'": lambda d, x: "use it",
    "changed its inputs": lambda d, x: judge(d, x.mul_(0.9)),
}

CASES = {
    "ex02_1": ([noise_at, noise_in_a_loop, noise_by_std], EX02_1_WRONG),
    "ex02_2": (
        [
            quantise,
            quantise_in_scipy,
            _quantise,
            quantise_with_the_chapters_matrix,
            partial(quantise_with_the_chapters_matrix, dtype=torch.float64),
        ],
        EX02_2_WRONG,
    ),
    "ex02_3": ([severities_for, severities_by_search], EX02_3_WRONG),
    "ex02_4": ([judge, judge_image_by_image], EX02_4_WRONG),
}
