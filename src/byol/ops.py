"""Image operations on batches, each image with a parameter of its own (paper appendix B; official
`byol/utils/augmentations.py`). No randomness here, and no clipping unless the official function
clips.

x is (N, C, H, W) in [0, 1], of any floating dtype; the colour operations need C = 3, brightness,
contrast and the geometric ones take any C. Parameters are (N,). Values outside [0, 1] stay finite.
Those with `out` write into it, which may be x.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)
_TABLE = 2**23  # numbers: resize weights of images up to 53 pixels are looked up


def _per_image(parameter: Tensor, x: Tensor, axes: int = 4) -> Tensor | float:
    """(N,) to (N, 1, 1, ...); of a single image the number, which costs less to work with."""
    if len(parameter) == 1 and parameter.device.type == "cpu":
        return float(parameter)
    return parameter.to(x).reshape(-1, *(1,) * (axes - 1))


def adjust_brightness(x: Tensor, delta: Tensor, out: Tensor | None = None) -> Tensor:
    """x + delta: additive, unlike torchvision's."""
    return torch.add(x, _per_image(delta, x), out=out)


def adjust_contrast(x: Tensor, factor: Tensor, out: Tensor | None = None) -> Tensor:
    """(x - m) factor + m, where m is the mean of *each channel*, unlike torchvision's."""
    by = _per_image(factor, x)
    rest = x.mean((2, 3), keepdim=True) * (1 - by)  # (N, C, 1, 1)
    return torch.mul(x, by, out=out).add_(rest)


def rgb_to_hsv(x: Tensor) -> Tensor:
    """Hue in turns (0 red, 1/3 green, 2/3 blue; 0 for greys), saturation, value: (N, 3, H, W).

    Ties of the largest channel go to red, then green; saturation is 0 where value <= 0.
    """
    r, g, b = x.unbind(1)  # (N, H, W) each
    value = torch.maximum(torch.maximum(r, g), b)
    span = value - torch.minimum(torch.minimum(r, g), b)
    saturation = torch.where(value > 0, span / value, 0)
    sixth = 1 / (6 * torch.where(span > 0, span, 1))
    hue = torch.where(
        r == value,
        sixth * (g - b),
        torch.where(g == value, sixth * (b - r) + 1 / 3, sixth * (r - g) + 2 / 3),
    )  # 0 where span is 0, as all differences are
    hue = torch.where(span > 0, hue, 0)
    return torch.stack((hue + (hue < 0), saturation, value), 1)


def hsv_to_rgb(x: Tensor) -> Tensor:
    """The inverse of rgb_to_hsv, (N, 3, H, W) to (N, 3, H, W); hue is taken modulo 1."""
    hue, saturation, value = x.unbind(1)  # (N, H, W) each
    turn = hue.remainder(1) * 6
    chroma = saturation * value
    least = value - chroma
    red = ((turn - 3).abs() - 1).clamp(0, 1)
    green = (2 - (turn - 2).abs()).clamp(0, 1)
    blue = (2 - (turn - 4).abs()).clamp(0, 1)
    return least[:, None] + chroma[:, None] * torch.stack((red, green, blue), 1)


def adjust_saturation(x: Tensor, factor: Tensor, out: Tensor | None = None) -> Tensor:
    """In HSV: saturation s becomes clip(s factor, 0, 1), hue and value stay; factor >= 0.

    At constant hue and value each channel's distance to the value scales with s, by the factor but
    at most by 1 / s = value / (value - least): no hue is computed.
    """
    r, g, b = x.unbind(1)  # (N, H, W) each
    value = torch.maximum(r, g)
    value = torch.maximum(value, b, out=value)
    scale = _per_image(factor, x)
    if bool((factor > 1).any()):  # else 1 / s >= 1 bounds nothing
        span = torch.minimum(r, g)
        span = torch.sub(value, torch.minimum(span, b, out=span), out=span)
        span.add_(torch.finfo(x.dtype).tiny)  # of greys: any scale does
        most = torch.div(value, span, out=span).clamp_min_(0)
        scale = most[:, None].clamp_max_(scale)  # type: ignore[arg-type]  # (N, 1, H, W)
    return torch.lerp(value[:, None].expand_as(x), x, scale, out=out)


def adjust_hue(x: Tensor, delta: Tensor, out: Tensor | None = None) -> Tensor:
    """In HSV: hue h in turns becomes (h + delta) mod 1.

    Without h: let v, d, m be a pixel's largest, middle and least value, c = v - m, and s the hue's
    signed distance to red in sixths of a turn. Red is the hat m + c clip(2 - |s|, 0, 1) of s, and
    c |s| = c + (g - m) + (b - m) - (r - m), so that m + 2 c - c |s| = 2 r - d. Turned by t sixths,
    |t| < 1, red is clip(2 r - d - t c sign(s), m, v), where s has the sign of g - b. The ramp
    clip((g - b) / (1 - |t|), -c, c) does for c sign(s), as it is full wherever the hat slopes.
    Green and blue are the same a third of a turn on, and a third of a turn exchanges the channels.
    """
    turn = 6 * delta.double().cpu().numpy()  # (N,)
    if (abs(turn) > 0.75).any():  # where the ramp would be too steep, thirds and twice the rest
        thirds = np.rint(turn / 2)
        for k in (1, 2):
            at = torch.from_numpy((thirds % 3 == k).nonzero()[0]).to(x.device)
            x = x.index_copy(0, at, x[at].roll(k, 1))
        turn = turn / 2 - thirds
        x = _turn_hue(x, turn, torch.empty_like(x))
    return _turn_hue(x, turn, torch.empty_like(x) if out is None else out)


def _turn_hue(x: Tensor, turn: np.ndarray, out: Tensor) -> Tensor:
    """adjust_hue by -1 < turn < 1 sixths, (N,)."""
    flat = 1 - abs(turn)
    steep, slope = (_per_image(torch.from_numpy(p), x, 3) for p in (flat, -turn / flat))
    channels = r, g, b = x.unbind(1)  # (N, H, W) each
    planes = torch.empty((8, *r.shape), dtype=x.dtype, device=x.device)
    low, high, middle, fewest, most, *ramps = planes.unbind()
    torch.minimum(r, g, out=low)
    torch.maximum(r, g, out=high)
    torch.clamp(b, low, high, out=middle).neg_()
    least = torch.minimum(low, b, out=low)
    value = torch.maximum(high, b, out=high)
    torch.sub(least, value, out=fewest).mul_(steep)
    torch.neg(fewest, out=most)
    for k, ramp in enumerate(ramps):  # before a channel is written to
        torch.sub(channels[(k + 1) % 3], channels[(k + 2) % 3], out=ramp)
        torch.clamp(ramp, fewest, most, out=ramp)
    for channel, ramp, turned in zip(channels, ramps, out.unbind(1), strict=True):
        torch.add(middle, channel, alpha=2, out=turned)
        if isinstance(slope, float):
            turned.add_(ramp, alpha=slope)
        else:
            turned.addcmul_(ramp, slope)
        torch.clamp(turned, least, value, out=turned)
    return out


def grayscale(x: Tensor) -> Tensor:
    """0.2989 R + 0.5870 G + 0.1140 B on all three channels (white becomes 0.9999): (N, 3, H, W)
    that share one plane of memory an image."""
    r, g, b = x.unbind(1)
    grey = GREY_WEIGHTS[0] * r  # (N, H, W)
    grey.add_(g, alpha=GREY_WEIGHTS[1]).add_(b, alpha=GREY_WEIGHTS[2])
    return grey[:, None].expand_as(x)


def blur_kernel_size(image_size: int) -> int:
    """Taps of the blur for images of this height in pixels: 23 at 224, 3 at 32, 1 (none) at 16."""
    return 2 * int(image_size / 10 / 2) + 1


_LEFT_OUT = 1e-6  # what the taps that are not computed may weigh together
_BLOCK = 16  # outputs a matrix product makes from 16 + taps - 1 inputs
_MANY = 9  # taps from which on products are faster than passes over the images


def gaussian_blur(x: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Separable Gaussian of `kernel_size` (odd) taps, sigma (N,) in pixels.

    Horizontal and vertical; zero padding without renormalisation, so that borders darken as in
    the official code.
    """
    radius = kernel_size // 2
    offset = np.arange(-radius, radius + 1)  # (taps,)
    deviation = sigma.double().cpu().numpy()[:, None]
    kernels = np.exp(-(offset**2) / (2 * deviation**2))  # (N, taps)
    kernels /= kernels.sum(1, keepdims=True)
    if kernel_size >= _MANY and x.device.type == "cpu":
        blurred = [_blur_in_blocks(*pair) for pair in zip(x, kernels, strict=True)]
        return torch.stack(blurred) if len(blurred) > 1 else blurred[0][None]
    taps = [k.reshape(-1, 1, 1, 1) for k in torch.from_numpy(kernels).to(x).unbind(1)]
    for axis in (3, 2):
        out, length = x * taps[radius], x.shape[axis]
        for k in range(1, min(radius, length - 1) + 1):  # pixels between tap and output
            ahead, behind = (0, length - k), (k, length - k)
            out.narrow(axis, *behind).addcmul_(x.narrow(axis, *ahead), taps[radius - k])
            out.narrow(axis, *ahead).addcmul_(x.narrow(axis, *behind), taps[radius + k])
        x = out
    return x


def _blur_in_blocks(image: Tensor, kernel: np.ndarray) -> Tensor:
    """(C, H, W) blurred by kernel (taps,) as products with a band of _BLOCK rows of its matrix."""
    if image.dtype == torch.float32:
        outer = 2 * kernel.cumsum()[: len(kernel) // 2]  # weigh the outermost 1, 2, ... tap pairs
        cut = np.count_nonzero(outer < _LEFT_OUT)
        kernel = kernel[cut : len(kernel) - cut]
    radius, (channels, height, width) = len(kernel) // 2, image.shape
    down, across = -(-height // _BLOCK), -(-width // _BLOCK)  # blocks
    reach = _BLOCK + 2 * radius
    band = image.new_zeros(_BLOCK, reach)
    band.as_strided((_BLOCK, len(kernel)), (reach + 1, 1)).copy_(torch.from_numpy(kernel))
    rows = _bordered(image.transpose(0, 1), radius, down * _BLOCK, 0)  # (high, C, W)
    line = channels * width
    blocks = rows.as_strided((down, reach, line), (_BLOCK * line, line, 1))
    made = torch.bmm(band.expand(down, -1, -1), blocks).view(-1, channels, width)
    columns = _bordered(made, radius, across * _BLOCK, 2)  # (high, C, wide)
    line = columns.shape[2]
    blocks = columns.as_strided((across, columns[..., 0].numel(), reach), (_BLOCK, line, 1))
    out = image.new_empty(*made.shape[:2], across * _BLOCK)
    target = out.as_strided((across, blocks.shape[1], _BLOCK), (_BLOCK, out.shape[2], 1))
    torch.bmm(blocks, band.T.expand(across, -1, -1), out=target)
    return out[:height, :, :width].transpose(0, 1)


def _bordered(x: Tensor, border: int, length: int, axis: int) -> Tensor:
    """x with zeros before its `axis`, and after it up to length + 2 border."""
    shape = list(x.shape)
    shape[axis] = length + 2 * border
    out = x.new_empty(shape)
    out.narrow(axis, 0, border).zero_()
    end = border + x.shape[axis]
    out.narrow(axis, end, shape[axis] - end).zero_()
    out.narrow(axis, border, x.shape[axis]).copy_(x)
    return out


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """x below the threshold, 1 - x from it on."""
    inverse = 1 - x
    if bool((threshold == 0.5).all()):  # the official one: several times faster
        return torch.minimum(x, inverse, out=inverse)
    return torch.where(x < _per_image(threshold, x), x, inverse)


def horizontal_flip(x: Tensor, mask: Tensor) -> Tensor:
    """Left and right exchanged where mask (N,) is true."""
    return torch.where(mask.reshape(-1, 1, 1, 1), x.flip(3), x)


def vertical_flip(x: Tensor, mask: Tensor) -> Tensor:
    """Top and bottom exchanged where mask (N,) is true."""
    return torch.where(mask.reshape(-1, 1, 1, 1), x.flip(2), x)


def quarter_turns(x: Tensor, turns: Tensor) -> Tensor:
    """Each square image (H = W) rotated by turns (N,) in {0, 1, 2, 3} times 90 degrees."""
    for k in (1, 2, 3):
        x = torch.where((turns == k).reshape(-1, 1, 1, 1), x.rot90(k, (2, 3)), x)
    return x


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
    """Cut each image's box and resize it bicubically: (N, C, H, W), (N, 4) to (N, C, size, size).

    boxes hold top, left, height, width in pixels. uint8 gives uint8 (rounded), floats in [0, 1]
    are clipped to it, as bicubic resampling overshoots. The official code resizes without
    antialiasing (`antialias=False`).
    """
    dtype = images.dtype if images.is_floating_point() else torch.float32
    top, left, height, width = boxes.unbind(1)
    rows = _weights(top, height, images.shape[2], size, antialias, dtype)  # (N, size, H)
    columns = _weights(left, width, images.shape[3], size, antialias, dtype)  # (N, size, W)
    lines = images.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format)  # (N, H, C, W)
    low = torch.bmm(rows, lines.flatten(2)).reshape(len(images), -1, images.shape[3])  # (N, S C, W)
    out = torch.bmm(low, columns.transpose(1, 2)).unflatten(1, (size, -1)).transpose(1, 2)
    if images.is_floating_point():
        return out.clamp_(0, 1)
    return out.add_(0.5).clamp_(0, 255).to(torch.uint8)
