"""Image operations on batches, each image with a parameter of its own (paper appendix B; official
`byol/utils/augmentations.py`). No randomness here, and no clipping unless the official function
clips.

x is (N, C, H, W) in [0, 1], of any floating dtype; the colour operations need C = 3, brightness,
contrast and the geometric ones take any C. Parameters are (N,). Values outside [0, 1] stay finite.
Those with `out` write into it, which may be x.
"""

import numpy as np
import torch
from torch import Tensor

from byol.blurring import blur_kernel_size as blur_kernel_size
from byol.blurring import gaussian_blur as gaussian_blur
from byol.resampling import crop_resize as crop_resize
from byol.resampling import resize_weights as resize_weights

GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)


def _per_image(parameter: Tensor, x: Tensor) -> Tensor | float:
    """(N,) to (N, 1, 1, 1); of a single image the number, which costs less to work with."""
    if parameter.numel() == 1 and parameter.device.type == "cpu":
        return float(parameter)
    return parameter.to(x).reshape(-1, 1, 1, 1)


def _channels(x: Tensor) -> tuple[Tensor, ...]:
    """(N, 1, H, W) each."""
    return x.unsqueeze(1).unbind(2)


def adjust_brightness(x: Tensor, delta: Tensor, out: Tensor | None = None) -> Tensor:
    """x + delta: additive, unlike torchvision's."""
    return torch.add(x, _per_image(delta, x), out=out)


def adjust_contrast(x: Tensor, factor: Tensor, out: Tensor | None = None) -> Tensor:
    """(x - m) factor + m, where m is the mean of *each channel*, unlike torchvision's."""
    by = _per_image(factor, x)
    rest = x.mean((2, 3), keepdim=True) * (1 - by)  # (N, C, 1, 1)
    if isinstance(by, float):
        return torch.add(rest, x, alpha=by, out=out)
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
    r, g, b = _channels(x)
    value = torch.maximum(r, g)
    value = torch.maximum(value, b, out=value)
    scale = _per_image(factor, x)
    if bool((factor > 1).any()):  # else 1 / s >= 1 bounds nothing
        span = torch.minimum(r, g)
        span = torch.sub(value, torch.minimum(span, b, out=span), out=span)
        span.add_(torch.finfo(x.dtype).tiny)  # of greys: any scale does
        most = torch.div(value, span, out=span)
        scale = most.clamp_min_(0).clamp_max_(scale)  # type: ignore[arg-type]
    return torch.lerp(value, x, scale, out=out)


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
    steep, slope = (_per_image(torch.from_numpy(p), x) for p in (flat, -turn / flat))
    r, g, b = _channels(x)
    low, high = torch.minimum(r, g), torch.maximum(r, g)
    middle = torch.clamp(b, low, high)
    least, value = torch.minimum(low, b, out=low), torch.maximum(high, b, out=high)
    most = torch.sub(value, least).mul_(steep)
    ramp = torch.empty_like(x)
    for ahead, behind, difference in zip((g, b, r), (b, r, g), _channels(ramp), strict=True):
        torch.sub(ahead, behind, out=difference)
    torch.clamp(ramp, -most, most, out=ramp)
    out = torch.lerp(middle, x, 2, out=out)  # 2 x - middle
    out = out.add_(ramp, alpha=slope) if isinstance(slope, float) else out.addcmul_(ramp, slope)
    return torch.clamp(out, least, value, out=out)


def grayscale(x: Tensor) -> Tensor:
    """0.2989 R + 0.5870 G + 0.1140 B on all three channels (white becomes 0.9999): (N, 3, H, W)
    that share one plane of memory an image."""
    r, g, b = x.unbind(1)
    grey = GREY_WEIGHTS[0] * r  # (N, H, W)
    grey.add_(g, alpha=GREY_WEIGHTS[1]).add_(b, alpha=GREY_WEIGHTS[2])
    return grey[:, None].expand_as(x)


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
