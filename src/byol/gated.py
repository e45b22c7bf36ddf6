"""Views on a GPU: every image passes through every operation, and a gate of its own decides which
results it keeps. The same numbers as `views.apply` (whose formulas in `ops` choose their way by the
values, as a CPU can), in a form without indices or branches, which torch.compile turns into a few
passes over the batch.
"""

import math
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from byol import ops, views
from byol.pinned import to_device
from byol.views import Draws
from byol.viewspec import ViewSpec

_WIDTHS = {"jitter_params": 4, "order": 4}  # columns of a field of Draws; the others have one


def pack(draws: Draws) -> np.ndarray:
    """The draws of B images as one table (B, 17) float32, in the order of Draws' fields."""
    columns = [getattr(draws, f.name).reshape(len(draws.flip), -1) for f in fields(Draws)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _unpack(table: Tensor) -> dict[str, Tensor]:
    """The inverse on the device: flags as gates (B, 1, 1, 1), numbers (B,), lists (B, 4)."""
    widths = [_WIDTHS.get(f.name, 1) for f in fields(Draws)]
    parts = zip(fields(Draws), table.split(widths, dim=1), strict=True)
    return {f.name: part if f.name in _WIDTHS else part[:, 0] for f, part in parts}


def _where(gate: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """gate (B,) nonzero where an image takes `yes` (B, C, H, W)."""
    return torch.where(_column(gate != 0), yes, no)


def _column(parameter: Tensor) -> Tensor:
    return parameter.reshape(-1, 1, 1, 1)  # (B, 1, 1, 1)


def _brightness(x: Tensor, delta: Tensor) -> Tensor:
    return x + _column(delta)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(x.mean((2, 3), keepdim=True), x, _column(factor))


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    value = x.amax(1, keepdim=True)  # (B, 1, H, W)
    span = value - x.amin(1, keepdim=True)
    most = torch.where(span > 0, value / span, 1)  # full saturation; greys have none to change
    return torch.lerp(value, x, torch.minimum(_column(factor), most))


def _hue(x: Tensor, delta: Tensor) -> Tensor:
    hue, saturation, value = ops.rgb_to_hsv(x).unbind(1)  # (B, H, W) each
    return ops.hsv_to_rgb(torch.stack((hue + delta.reshape(-1, 1, 1), saturation, value), 1))


_COLOUR_OPS = (_brightness, _contrast, _saturation, _hue)


def _blur(x: Tensor, sigma: Tensor, taps: int, cut: bool) -> Tensor:
    """ops.gaussian_blur, one pass an axis."""
    radius = taps // 2
    offset = torch.arange(-radius, radius + 1, device=x.device)  # (taps,)
    kernel = torch.exp(-offset.square() / (2 * sigma.square()[:, None]))  # (B, taps)
    if cut:
        kernel = kernel * (offset.abs() <= torch.ceil(3 * sigma[:, None]))
    kernel = kernel / kernel.sum(1, keepdim=True)
    for axis, border in ((3, (radius, radius)), (2, (0, 0, radius, radius))):
        padded, length = F.pad(x, border), x.shape[axis]
        x = sum(
            (padded.narrow(axis, k, length) * _column(kernel[:, k]) for k in range(taps)),
            start=torch.zeros_like(x),
        )
    return x


def _solarize(x: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(x < _column(threshold), x, 1 - x)


def _jitter(x: Tensor, params: Tensor, order: Tensor) -> Tensor:
    """views.jitter_colours: in each turn an image takes one of the four results."""
    operations = _COLOUR_OPS if x.shape[1] == 3 else _COLOUR_OPS[:2]
    for turn in range(4):
        kind, y = order[:, turn], x
        for k, operation in enumerate(operations):
            y = _where(kind == k, operation(x, params[:, k]), y)
        x = y.clamp(0, 1)
    return x


def apply(crops: Tensor, table: Tensor, can_turn: bool, taps: int, cut: bool) -> Tensor:
    """Crops (B, C, S, S), uint8 or floats in [0, 1], to views in channels-last order.

    table: what `pack` made. can_turn: whether any image may be turned or flipped vertically; taps:
    of the blur, 1 where there is none; cut: see ops.gaussian_blur.
    """
    drawn = _unpack(table)
    x = crops.to(torch.float32) / 255 if crops.dtype == torch.uint8 else crops
    x = _where(drawn["flip"], x.flip(3), x)
    if can_turn:
        x = _where(drawn["flip_vertical"], x.flip(2), x)
        x = ops.quarter_turns(x, drawn["turns"])
    x = _where(drawn["jitter"], _jitter(x, drawn["jitter_params"], drawn["order"]), x)
    if x.shape[1] == 3:
        x = _where(drawn["grey"], ops.grayscale(x), x)
    if taps > 1:
        x = _where(drawn["blur"], _blur(x, drawn["sigma"], taps, cut), x)
    x = _where(drawn["solarize"], _solarize(x, drawn["threshold"]), x)
    return x.clamp(0, 1).contiguous(memory_format=torch.channels_last)


@cache
def _compiled() -> Any:
    return torch.compile(apply, dynamic=False)


def make_views(
    crops: Tensor,
    specs: tuple[ViewSpec, ViewSpec],
    seed: int,
    epoch: np.ndarray,
    index: np.ndarray,
    compiled: bool,
    cut: bool = False,
) -> tuple[Tensor, Tensor]:
    """Crops (B, 2, C, S, S) on a device to the two views (B, C, S, S) in [0, 1]; see
    views.make_views. The host hands over one table and does not wait for the device."""
    tables = [pack(views.draw(specs[v], seed, epoch, index, v)) for v in (0, 1)]
    table = to_device(np.concatenate(tables), crops.device)  # (2B, 17)
    both = crops.transpose(0, 1).flatten(0, 1)  # (2B, C, S, S)
    can_turn = any(spec.flip_vertical or spec.rotate for spec in specs)
    blurs = any(spec.blur for spec in specs)
    taps = ops.blur_kernel_size(crops.shape[-1]) if blurs else 1
    if cut:
        widest = np.float32(max(spec.blur_sigma_max for spec in specs))
        taps = min(taps, 2 * math.ceil(3 * widest) + 1)
    made = _compiled() if compiled else apply
    view1, view2 = made(both, table, can_turn, taps, cut).chunk(2)
    return view1, view2
