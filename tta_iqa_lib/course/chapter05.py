"""Chapter 5, batch normalisation: its checkers."""

import torch

from .checker import Wrong, checker, close


@checker("ex05_1")
def ex05_1(mix):
    """`mix(mean_s, var_s, mean_t, var_t, alpha) -> (mean, var)`: the moments of the mixture, checked on real samples."""
    generator = torch.Generator().manual_seed(51)
    old = 1 + 0.5 * torch.randn(4, 3000, generator=generator, dtype=torch.float64)
    new = -2 + 2.0 * torch.randn(4, 1000, generator=generator, dtype=torch.float64)
    arguments = old.mean(1), old.var(1, correction=0), new.mean(1), new.var(1, correction=0)
    kept = [a.clone() for a in arguments]
    both = torch.cat([old, new], 1)  # α = 1/4: the mixture is simply both sets together
    mean, var = mix(*arguments, 0.25)
    if any(not torch.equal(a, b) for a, b in zip(arguments, kept, strict=True)):
        raise Wrong("your function changed its inputs; make new tensors instead of writing into old ones")
    if not close(mean, both.mean(1)):
        if close(mean, 0.25 * arguments[0] + 0.75 * arguments[2]):
            raise Wrong("the weights are swapped: alpha is the share of the test batch, not of the source")
        raise Wrong("the mean is not (1 − alpha)·mean_s + alpha·mean_t")
    expected = both.var(1, correction=0)
    if close(var, 0.75 * arguments[1] + 0.25 * arguments[3]):
        raise Wrong("this is the linear blend of the variances; it misses the spread between the two means")
    if close(torch.as_tensor(var) ** 2, expected):
        raise Wrong("this is the standard deviation; BatchNorm keeps the variance")
    if not close(var, expected):
        raise Wrong(
            "the mean is right, the variance is not: work out E[x²] of the mixture first, then subtract the mean squared"
        )
    zero_mean, zero_var = mix(*arguments, 0.0)
    if not (close(zero_mean, arguments[0]) and close(zero_var, arguments[1])):
        raise Wrong("alpha = 0 must give the source's moments back")
