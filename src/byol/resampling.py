"""Crops resized bicubically, a batch at a time, as products with matrices of weights."""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_CACHED = 2**18  # numbers of images that are worked on together on a CPU
_TABLE = 2**23  # numbers: resize weights of images up to 53 pixels are looked up


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -1/2, as in TensorFlow and PIL (PyTorch's default is -3/4)."""
    x = x.abs()
    near, far = x.clamp_max(1), x.clamp(1, 2)  # each polynomial is 0 at the end of its range
    return ((1.5 * near - 2.5) * near * near + 1) + (((-0.5 * far + 2.5) * far - 4) * far + 2)


def resize_weights(
    start: Tensor, extent: Tensor, side: int, size: int, antialias: bool, dtype: torch.dtype
) -> Tensor:
    """Bicubic weights (N, size, side) that resample pixels start to start + extent of an axis.

    start and extent are (N,) integers; half-pixel centres; taps outside the crop are dropped and
    the rest is renormalised. With antialias the kernel widens with the scale when shrinking.
    """
    start, extent = start.to(dtype)[:, None, None], extent.to(dtype)[:, None, None]  # (N, 1, 1)
    scale = extent / size
    pixel = torch.arange(side, device=start.device, dtype=dtype) - start  # (N, 1, side)
    centre = (torch.arange(size, device=start.device, dtype=dtype)[:, None] + 0.5) * scale
    width = scale.clamp_min(1) if antialias else 1
    weights = _cubic((pixel + 0.5 - centre) / width)  # (N, size, side)
    weights = weights * ((pixel >= 0) & (pixel < extent))
    return weights / weights.sum(2, keepdim=True)


@lru_cache(4)
def _every_weight(
    side: int, size: int, antialias: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """resize_weights of all starts and extents: (side (side + 1), size, side)."""
    place = torch.arange(side * (side + 1), device=device)
    start, extent = place // (side + 1), place % (side + 1)
    inside = extent.clamp_min(1).minimum(side - start)  # what reaches over the border is not asked
    return resize_weights(start, inside, side, size, antialias, dtype)


def _weights(start: Tensor, extent: Tensor, side: int, *how: Any) -> Tensor:
    """resize_weights, looked up for small images."""
    if side * (side + 1) * how[0] * side > _TABLE:
        return resize_weights(start, extent, side, *how)
    return _every_weight(side, *how, start.device).index_select(0, start * (side + 1) + extent)


def crop_resize(images: Tensor, boxes: Tensor, size: int, antialias: bool = True) -> Tensor:
    """Cut each image's box and resize it bicubically: (N, C, H, W), (N, 4) to (N, C, size, size);
    with V boxes an image, (N, V, 4), to (N, V, C, size, size).

    boxes hold top, left, height, width in pixels. uint8 gives uint8 (rounded), floats in [0, 1]
    are clipped to it, as bicubic resampling overshoots. The official code resizes without
    antialiasing (`antialias=False`).
    """
    n, c, *sides = images.shape
    several = boxes.reshape(n, -1, 4)  # (N, V, 4)
    few = n if images.device.type != "cpu" else max(1, _CACHED // (c * math.prod(sides)))
    shape = several.shape[1], n, c, size, size  # a view's crops lie together
    out = torch.empty(shape, dtype=images.dtype, device=images.device).transpose(0, 1)
    for part in (slice(start, start + few) for start in range(0, n, few)):
        out[part] = _crop_resize(images[part], several[part], size, antialias)
    return out if boxes.ndim == 3 else out[:, 0]


def _crop_resize(images: Tensor, boxes: Tensor, size: int, antialias: bool) -> Tensor:
    dtype = images.dtype if images.is_floating_point() else torch.float32
    (n, v, _), (side, wide) = boxes.shape, images.shape[2:]
    top, left, height, width = boxes.flatten(0, 1).unbind(1)  # (N V,) each
    rows = _weights(top, height, side, size, antialias, dtype)  # (N V, S, H)
    columns = _weights(left, width, wide, size, antialias, dtype)  # (N V, S, W)
    lines = images.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format)  # (N, H, C, W)
    low = torch.bmm(rows.view(n, v * size, side), lines.flatten(2))  # (N, V S, C W)
    out = torch.bmm(low.view(n * v, -1, wide), columns.transpose(1, 2))  # (N V, S C, S)
    out = out.view(n, v, size, -1, size).transpose(2, 3)  # (N, V, C, S, S)
    if images.is_floating_point():
        return out.clamp_(0, 1)
    # To bytes by way of 16 bits, as torch has vector instructions for both of these steps.
    return out.add_(0.5).clamp_(0, 255).to(torch.int16).to(torch.uint8)
