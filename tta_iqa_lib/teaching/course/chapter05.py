"""Chapter 5, batch normalisation: its checkers."""

import torch

from .checker import Wrong, checker, close, near


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
    y = torch.as_tensor(normalise_groups(x.clone(), groups, 0.1))
    if y.shape != x.shape:
        raise Wrong(f"the answer must have the shape of x, {tuple(x.shape)}; it has {tuple(y.shape)}")
    expected, singles, unbiased, plain = (torch.empty_like(x) for _ in range(4))
    for i, group in enumerate(groups):
        pot = x[groups == group].transpose(0, 1).flatten(1)
        mean, var = pot.mean(1).view(-1, 1, 1), pot.var(1, correction=0).view(-1, 1, 1)
        expected[i] = (x[i] - mean) / (var + 0.1).sqrt()
        plain[i] = (x[i] - mean) / (var.sqrt() + 0.1)
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
    if sorted(y.flatten().tolist()) == sorted(expected.flatten().tolist()) or close(
        y, torch.cat([expected[groups == g] for g in range(3)])
    ):
        raise Wrong("the values are right, their order is not: image i of the answer is image i of x")
    raise Wrong("take mean and variance over the images, rows and columns of one group, channel by channel")
