"""Convolutions over small maps, such as the last ones of a small image, faster on a CPU.

Taps that meet nothing but the padding are left out: of a 3x3 kernel over a single pixel all but
the middle one. And the gradient of the weight is one product of matrices, of the outputs' gradients
with the patches that the kernel saw: oneDNN walks along the rows of a map, and where these are one
or two pixels wide it is far from the processor's peak (docs/performance.md).
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Taps times outputs of a map, up to which the product is faster: 3x3 over 2 x 2 pixels, and over a
# single one in fp32 with AVX-512, with which oneDNN does better.
FEW, FEW_WIDE = 36, 9


def speed_small_maps_(module: nn.Module) -> None:
    """Every 2D convolution of `module` on a CPU, if it has no groups or dilation and pads with
    zeros, goes this way where its map is small. Names stay; values and gradients differ by
    rounding."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and _is_plain(conv):
            conv._conv_forward = MethodType(_conv_forward, conv)  # type: ignore[method-assign]


def _is_plain(conv: nn.Conv2d) -> bool:
    has_numbers = not isinstance(conv.padding, str)
    settings = (conv.groups, *conv.dilation, conv.padding_mode, conv.weight.device.type)
    return has_numbers and settings == (1, 1, 1, "zeros", "cpu")


def _conv_forward(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    borders: Any = conv.padding
    padding, work = [], 1  # of the taps that are used; these times outputs
    for axis, border, stride in zip((-2, -1), borders, conv.stride, strict=True):
        side, taps = x.shape[axis], weight.shape[axis]
        outputs = _outputs(side, taps, border, stride)
        first, end = max(0, border - (outputs - 1) * stride), min(taps, side + border)
        if first >= end or _outputs(side, end - first, border - first, stride) != outputs:
            first, end = 0, taps
        if end - first < taps:
            weight = weight.narrow(axis, first, end - first)
        padding.append(border - first)
        work *= outputs * (end - first)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    is_wide = dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() == "AVX512"
    is_trained = weight.requires_grad and torch.is_grad_enabled()
    if not is_trained or work > (FEW_WIDE if is_wide else FEW) or x.ndim != 4:
        return F.conv2d(x, weight, bias, conv.stride, padding)
    out: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
        x.to(dtype), weight.to(dtype), conv.stride, padding
    )
    return out if bias is None else out + bias.to(out.dtype)[:, None, None]


def _outputs(side: int, taps: int, border: int, stride: int) -> int:
    """Outputs of a convolution along one axis."""
    return (side + 2 * border - taps) // stride + 1


class _Convolution(torch.autograd.Function):
    """F.conv2d, with the gradient of its weight as one product."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        x, weight = ctx.saved_tensors  # (B, C, H, W), (D, C, h, w)
        of_x = None
        if ctx.needs_input_grad[0]:
            how = (None, ctx.stride, ctx.padding, [1, 1], False, [0, 0], 1, [True, False, False])
            of_x = torch.ops.aten.convolution_backward(gradient, x, weight, *how)[0]
        (down, across), (height, width) = ctx.padding, weight.shape[2:]
        padded = F.pad(x, (across, across, down, down)).permute(0, 2, 3, 1)
        seen = padded.unfold(1, height, ctx.stride[0]).unfold(2, width, ctx.stride[1])
        seen = seen.permute(0, 1, 2, 4, 5, 3).reshape(-1, height * width * x.shape[1])
        due = gradient.permute(0, 2, 3, 1).flatten(0, 2)  # (B H' W', D); seen (B H' W', h w C)
        of_weight = (due.T @ seen).view(-1, height, width, x.shape[1])  # (D, h, w, C)
        return of_x, of_weight.permute(0, 3, 1, 2), None, None
