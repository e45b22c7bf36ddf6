"""Batch statistics over the images of several processes, on any device (gloo or NCCL).

Each process sums its images' values and squares, one all-reduce adds the sums up; the backward
pass does the same with the two sums that a batch norm's gradient needs. A group of images may
begin in one process and end in another.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def normalise(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, images: int | None
) -> tuple[Tensor, Tensor, Tensor, int]:
    """(B, C) or (B, C, H, W) of this process, normalised by channel over the group of each image.

    The batch is that of all processes in the order of their ranks, B images from each; its groups
    are `images` consecutive ones (None: all). Also returns each group's mean and unbiased variance
    (G, C), and the number of values they are of. Computed in float32 at least.
    """
    total = len(input) * dist.get_world_size()
    images = images or total
    place = dist.get_rank() * len(input) + torch.arange(len(input), device=input.device)
    group = place // images  # (B,)
    output, mean, var = _Normalise.apply(input, weight, bias, eps, group, total // images)
    count = images * (input.numel() // (len(input) * input.shape[1]))
    return output, mean, var * (count / max(count - 1, 1)), count


def gathered(rows: Tensor) -> Tensor:
    """(B, D) of each process to (W B, D) of all W, by rank; for a loss that all compute alike.

    The gradient of a process's own rows is then W times what reaches them, as gradients are
    averaged over processes afterwards: no communication on the way back.
    """
    return _Gathered.apply(rows)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        own = gradient.chunk(dist.get_world_size())[dist.get_rank()]
        return own * dist.get_world_size()


class _Normalise(torch.autograd.Function):
    """Input, weight, bias to output (B, C, ...), means and biased variances (G, C)."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        group: Tensor,
        groups: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        var, mean = _image_moments(x)  # (B, C) each, over an image's pixels
        sums = torch.cat((mean, var + mean.square(), torch.ones_like(mean[:, :1])), 1)
        sums = _over_groups(sums, group, groups)  # (G, 2C + 1)
        means, squares = (sums[:, :-1] / sums[:, -1:]).chunk(2, 1)  # (G, C) each
        variances = (squares - means.square()).clamp_min_(0)
        mean, scale = means.to(x.dtype)[group], (variances + eps).rsqrt().to(x.dtype)[group]
        normal = (x - _like(mean, x)) * _like(scale, x)
        ctx.save_for_backward(input, weight, mean, scale, group, sums[:, -1:])
        output = normal if weight is None else normal * _like(weight[None], x)
        output = output if bias is None else output + _like(bias[None], x)
        means, variances = means.to(x.dtype), variances.to(x.dtype)
        ctx.mark_non_differentiable(means, variances)
        return output.to(input.dtype), means, variances

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, gradient: Tensor, *unused: Tensor
    ) -> tuple[Tensor | None, ...]:
        input, weight, mean, scale, group, counts = ctx.saved_tensors
        x, g = input.to(mean.dtype), gradient.to(mean.dtype)
        normal = (x - _like(mean, x)) * _like(scale, x)  # (B, C, ...)
        axes = tuple(range(2, x.ndim))
        by_image = torch.cat((_sum(g, axes), _sum(g * normal, axes)), 1)  # (B, 2C)
        g_bias, g_weight = by_image.sum(0).chunk(2)
        pixels = x.numel() // (len(x) * x.shape[1])
        if weight is not None:
            by_image = by_image * weight.repeat(2)
            g = g * _like(weight[None], x)
        sums = _over_groups(by_image, group, len(counts)) / (counts * pixels)  # (G, 2C)
        shift, slope = sums.to(x.dtype)[group].chunk(2, 1)  # (B, C) each
        g_input = (g - _like(shift, x) - normal * _like(slope, x)) * _like(scale, x)
        needs = ctx.needs_input_grad
        return (
            g_input.to(input.dtype),
            g_weight.to(x.dtype) if needs[1] else None,
            g_bias.to(x.dtype) if needs[2] else None,
            *(None, None, None),
        )


def _image_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean (B, C) of each image's values, in float64: sums of squares need it."""
    if x.ndim == 2:
        return torch.zeros_like(x).double(), x.double()
    var, mean = torch.var_mean(x, tuple(range(2, x.ndim)), correction=0)
    return var.double(), mean.double()


def _sum(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return (x.sum(axes) if axes else x).double()


def _over_groups(rows: Tensor, group: Tensor, groups: int) -> Tensor:
    """(B, n) of this process's images to the sums (G, n) over the images of all processes."""
    sums = rows.new_zeros(groups, rows.shape[1]).index_add_(0, group, rows)
    dist.all_reduce(sums)
    return sums


def _like(values: Tensor, x: Tensor) -> Tensor:
    """(B, C) or (1, C) as a factor of (B, C, ...)."""
    return values.view(*values.shape, *(1,) * (x.ndim - 2))
