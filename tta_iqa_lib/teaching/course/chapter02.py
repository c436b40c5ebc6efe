"""Chapter 2, distortions: its checkers."""

import numpy as np
import torch
from scipy.fft import dctn, idctn
from torch.nn.functional import interpolate

from ...imaging.distortions import distort
from .checker import Wrong, checker, close, in_either_precision, near


def _tensor(value, shape) -> torch.Tensor:
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.shape != torch.Size(shape):
        raise Wrong(f"the result has shape {tuple(value.shape)}; {tuple(shape)} is asked for")
    return value


@checker("ex02_1")
def ex02_1(noise_at):
    """`noise_at(images (B, 3, H, W), psnr (B,), generator)`: each image has its own PSNR to .01 dB, nothing is clipped."""
    images = torch.rand(4, 3, 24, 40, generator=torch.Generator().manual_seed(21), dtype=torch.float64)
    images[1] = 0.02  # clipping at 0 would show here
    wanted = torch.tensor([12.0, 20.0, 33.0, 27.0], dtype=torch.float64)

    def made_with(seed):
        return _tensor(noise_at(images, wanted, torch.Generator().manual_seed(seed)), images.shape)

    made = made_with(5)
    if not torch.equal(made, made_with(5)):
        raise Wrong("the same generator state gives other noise: pass `generator=generator` to torch.randn")
    if torch.equal(made, made_with(6)):
        raise Wrong("another generator gives the same noise: draw from the generator you are given, not from your own")
    noise = made - images
    found = -10 * noise.square().mean((1, 2, 3)).log10()
    if not near(found, wanted, 0.01):
        if made.min() >= 0 and made.max() <= 1:
            raise Wrong("the values are clipped to [0, 1]; that changes the error: leave them as they are")
        if near(-10 * noise.square().mean().log10(), -10 * (10 ** (-wanted / 10)).mean().log10(), 1e-3):
            raise Wrong("right over the whole batch, but not for each image: normalise every image's noise by itself")
        if near(found, wanted, 0.5):
            raise Wrong("close, but right only on average: divide each image's noise by its own root mean square")
        if near(found, 2 * wanted, 1.0):
            raise Wrong("this scales the noise by the MSE; its root is the amplitude (20 in place of 10)")
        if near(found, wanted / 2, 1.0):
            raise Wrong("too strong: the amplitude is 10^(−PSNR / 20), and not 10^(−PSNR / 40)")
        raise Wrong(f"the PSNRs are {[round(f, 1) for f in found.tolist()]}; wanted {wanted.tolist()}")
    shape = (noise / noise.std((1, 2, 3), keepdim=True)).flatten(1)
    if not near(shape.pow(4).mean(), 3, 0.4):
        raise Wrong("the error is right, but the noise is not Gaussian: use torch.randn")
    unit = noise / noise.std((1, 2, 3), keepdim=True)
    for axis, name in enumerate(("image", "channel", "row", "column")):
        if float((unit * unit.roll(1, axis)).mean()) > 0.1:  # neighbours would have nothing in common
            raise Wrong(
                f"each {name} needs noise of its own: draw a number for each value, torch.randn(images.shape, …)"
            )


def _reference(planes: np.ndarray, tables: np.ndarray, rounding=np.round) -> np.ndarray:
    result = np.empty_like(planes)
    for b, y, x in np.ndindex(len(planes), planes.shape[1] // 8, planes.shape[2] // 8):
        box = b, slice(8 * y, 8 * y + 8), slice(8 * x, 8 * x + 8)
        result[box] = idctn(rounding(dctn(planes[box], norm="ortho") / tables[b]) * tables[b], norm="ortho")
    return result


@checker("ex02_2")
def ex02_2(quantise):
    """`quantise(planes (B, H, W), tables (B, 8, 8)) -> (B, H, W)`: compared block by block with SciPy's DCT."""
    rng = np.random.default_rng(22)
    rows, columns = np.mgrid[:24, :40]
    planes = 90 * np.sin(rows / 5 + columns / 3 + rng.uniform(0, 6, (3, 1, 1))) + rng.normal(0, 15, (3, 24, 40))
    tables = rng.uniform(5, 60, (3, 8, 8)) * np.array([0.4, 1, 2])[:, None, None]
    planes, tables = torch.from_numpy(planes).float(), torch.from_numpy(tables).float()  # as the chapter's D and TABLE
    found = _tensor(in_either_precision(quantise, planes, tables), planes.shape)

    def reference(tables, *rounding):
        return _reference(planes.numpy(), tables.numpy(), *rounding)

    def same(other):
        return (found - torch.as_tensor(other)).abs().mean() < 0.05  # a tie of rounding may fall differently

    if same(reference(tables)):
        return
    if same(planes):
        raise Wrong("nothing has been lost: round the divided frequencies")
    if same(reference(tables, np.floor)) or same(reference(tables, np.trunc)):
        raise Wrong("round to the nearest integer, neither down (floor, //) nor towards zero (int, trunc)")
    if same(reference(tables[:1].repeat(3, 1, 1))):
        raise Wrong("all images were quantised with the table of the first: each has its own")
    if same(reference(tables.transpose(1, 2))):
        raise Wrong("rows and columns of the table are swapped: D @ block @ D.T, in this order")
    if found.abs().mean() < 0.3 * planes.abs().mean():
        raise Wrong("too small: after rounding, multiply by the table again, then transform back")
    blocks = torch.from_numpy(reference(tables)).view(3, 3, 8, 5, 8).transpose(2, 3)
    if same(blocks.reshape(3, 24, 40)):
        raise Wrong("the blocks are right but not back in their places: transpose (2, 3) again before the reshape")
    if found.abs().max() > 1.5 * planes.abs().max():
        raise Wrong("these are frequencies: the way back, D.T @ frequencies @ D, is missing")
    off = float((found - torch.from_numpy(reference(tables))).abs().mean())
    raise Wrong(f"off by {off:.1f} grey levels on average: are the blocks 8×8 squares?")


@checker("ex02_3")
def ex02_3(severities_for):
    """`severities_for(grid (S,), curves (B, S) falling, wanted (B,)) -> (B,)`: linear interpolation, ends kept."""
    grid = torch.tensor([0.0, 0.1, 0.3, 0.6, 1.0], dtype=torch.float64)  # not evenly spaced
    curves = torch.tensor([[1.0, 0.9, 0.6, 0.5, 0.2], [1.0, 0.7, 0.4, 0.3, 0.1]], dtype=torch.float64)
    curves = curves[[0, 1, 0, 1, 0, 1]]
    wanted = torch.tensor([0.95, 0.75, 0.55, 0.38, 0.9, 0.6], dtype=torch.float64)
    expected = torch.tensor([0.05, 0.25 / 3, 0.45, 0.36, 0.1, 0.5 / 3], dtype=torch.float64)
    found = _tensor(severities_for(grid, curves, wanted), wanted.shape)

    def each(read):
        """A rule for one curve and one quality, for all of them."""
        return [float(read(curve, q)) for curve, q in zip(curves, wanted, strict=True)]

    if not close(found, expected):
        for wrong, reason in (
            (
                [np.interp(q, curves[0].flip(0), grid.flip(0)) for q in wanted],
                "all were read off the first curve: each image has its own",
            ),
            (
                [np.interp(q, curves.mean(0).flip(0), grid.flip(0)) for q in wanted],
                "all were read off the mean curve: each image has its own",
            ),
            (
                each(lambda c, q: np.interp(q, grid, c)),
                "this reads the curve forwards: quality is the known axis, severity the sought one",
            ),
            (
                each(lambda c, q: np.interp(q, c, grid)),
                "np.interp needs a rising first axis, and quality falls: flip both lists",
            ),
            (each(lambda c, q: np.interp(q, c.flip(0), grid)), "one list is flipped and the other is not"),
            (
                each(lambda c, q: np.interp(q, c.flip(0), np.linspace(1, 0, 5))),
                "the grid is not evenly spaced: use its values, not their positions",
            ),
        ):
            if close(found, wrong):
                raise Wrong(reason)
        if all(float(f) in grid.tolist() for f in found):
            raise Wrong("this picks a point of the grid; interpolate between the two neighbours")
        raise Wrong(f"for {wanted.tolist()} expected {[round(e, 2) for e in expected.tolist()]}")
    beyond = torch.tensor([1.2, 0.05], dtype=torch.float64)
    if not close(_tensor(severities_for(grid, curves[:2], beyond), (2,)), [0.0, 1.0]):
        raise Wrong("a quality that no severity reaches gets the nearest end of the grid: 0 for 1.2, and 1 for 0.05")


def _five_taps(images: torch.Tensor, severity: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A blur whose kernel stays five pixels long however large σ is."""
    offsets = torch.arange(-2.0, 3.0, dtype=images.dtype)
    weights = torch.exp(-(offsets**2) / (2 * (40 * severity.to(images) ** 2 + 1e-6).view(-1, 1) ** 2))
    weights = (weights / weights.sum(1, keepdim=True))[:, :, None, None, None]
    for axis in (2, 3):
        moved = [weights[:, k] * images.roll(int(offset), axis) for k, offset in enumerate(offsets)]
        images = torch.stack(moved).sum(0)
    return images


def _noise(strength, own: bool = True):
    """Noise of `strength(severity (B,), images)`, from the generator or from PyTorch's global state."""

    def distortion(images, severity, generator):
        drawn = torch.randn(images.shape, generator=generator if own else None, dtype=images.dtype)
        return images + 0.3 * strength(severity.to(images), images).view(-1, 1, 1, 1) * drawn

    return distortion


def _with_a_little_luck(images, severity, generator):
    worse = distort(images, "blur", severity)
    return worse + 1e-3 * severity.to(images).view(-1, 1, 1, 1) * torch.randn(images.shape, dtype=images.dtype)


_JUDGED = (  # verdict, distortion, what an answer that says otherwise has not seen
    ("use it", _noise(lambda s, x: s), "plain noise from the generator; a new call needs a fresh generator, same seed"),
    ("use it", lambda x, s, g: distort(x, "blur", s), "a good blur: each step blurs more"),
    ("not repeatable", _noise(lambda s, x: s, own=False), "noise from PyTorch's global state"),
    ("not repeatable", _with_a_little_luck, "a little of its noise comes from the global state: compare bit by bit"),
    ("severity fails", _noise(lambda s, x: s.clamp(max=0.5)), "from 0.6 on it stands still: look at every step"),
    ("severity fails", _noise(lambda s, x: s - 1.5 * (s - 0.8).relu()), "its last step makes the pictures better"),
    ("severity fails", _noise(lambda s, x: (s - 0.25).relu()), "its first step changes nothing: 0 is 1.05 times 0"),
    ("severity fails", _five_taps, "a blur of five taps: its error still grows, but by less than 5 % a step"),
    (
        "severity fails",
        _noise(lambda s, x: torch.where(x.mean((1, 2, 3)) < 0.3, s.clamp(max=0.5), s)),
        "one image, the dark one, stands still: judge each image, not the mean of the batch",
    ),
)


@checker("ex02_4")
def ex02_4(judge):
    """`judge(distortion, images) -> verdict`: "use it", "not repeatable" or "severity fails", for nine distortions."""
    generator = torch.Generator().manual_seed(24)
    scales = [torch.rand(5, 3, side, side, generator=generator) for side in (3, 6, 12, 24, 48)]  # as in photographs
    images = torch.stack([interpolate(s, (48, 48), mode="bilinear") for s in scales]).mean(0)
    images[3] *= 0.3
    state = torch.random.get_rng_state()
    try:
        for verdict, distortion, seen in _JUDGED:
            found = judge(distortion, images)
            if found not in ("use it", "not repeatable", "severity fails"):
                raise Wrong(f"expected one of the three verdicts; got {found!r}")
            if found != verdict:
                raise Wrong(f"your verdict is {found!r} and should be {verdict!r}: {seen}")
    finally:
        torch.random.set_rng_state(state)  # some distortions draw from it, which is their fault
