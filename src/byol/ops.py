"""Image operations on batches, each image with a parameter of its own (paper appendix B; official
`byol/utils/augmentations.py`). No randomness here, and no clipping unless the official function
clips.

x is (N, C, H, W) in [0, 1], of any floating dtype; the colour operations need C = 3, brightness,
contrast and the geometric ones take any C. Parameters are (N,). Values outside [0, 1] stay finite.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)


def _per_image(parameter: Tensor, x: Tensor) -> Tensor:
    return parameter.to(x.dtype).reshape(-1, 1, 1, 1)  # (N, 1, 1, 1)


def adjust_brightness(x: Tensor, delta: Tensor) -> Tensor:
    """x + delta: additive, unlike torchvision's."""
    return x + _per_image(delta, x)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """(x - m) factor + m, where m is the mean of *each channel*, unlike torchvision's."""
    mean = x.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
    return torch.lerp(mean, x, _per_image(factor, x))


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


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """In HSV: saturation s becomes clip(s factor, 0, 1), hue and value stay.

    At constant hue and value each channel's distance to the value scales with s, so no hue is
    computed.
    """
    value = x.amax(1, keepdim=True)  # (N, 1, H, W)
    span = value - x.amin(1, keepdim=True)
    saturation = torch.where(value > 0, span / value, 0)
    target = (saturation * _per_image(factor, x)).clamp(0, 1)
    scale = torch.where(saturation > 0, target / saturation, 0)
    return torch.lerp(value.expand_as(x), x, scale.expand_as(x))


def adjust_hue(x: Tensor, delta: Tensor) -> Tensor:
    """In HSV: hue h in turns becomes (h + delta) mod 1."""
    hue, saturation, value = rgb_to_hsv(x).unbind(1)
    hue = hue + delta.to(x.dtype).reshape(-1, 1, 1)
    return hsv_to_rgb(torch.stack((hue, saturation, value), 1))


def grayscale(x: Tensor) -> Tensor:
    """0.2989 R + 0.5870 G + 0.1140 B on all three channels (white becomes 0.9999)."""
    r, g, b = x.unbind(1)
    grey = GREY_WEIGHTS[0] * r + GREY_WEIGHTS[1] * g + GREY_WEIGHTS[2] * b  # (N, H, W)
    return grey[:, None].expand_as(x).contiguous()


def blur_kernel_size(image_size: int) -> int:
    """Taps of the blur for images of this height in pixels: 23 at 224, 3 at 32, 1 (none) at 16."""
    return 2 * int(image_size / 10 / 2) + 1


def gaussian_blur(x: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Separable Gaussian of `kernel_size` (odd) taps, sigma (N,) in pixels.

    Horizontal, then vertical; zero padding without renormalisation, so that borders darken as in
    the official code.
    """
    radius = kernel_size // 2
    offset = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)  # (taps,)
    kernel = torch.exp(-offset.square() / (2 * sigma.to(x.dtype).square()[:, None]))  # (N, taps)
    kernel = kernel / kernel.sum(1, keepdim=True)
    height, width = x.shape[2:]
    taps = [k.reshape(-1, 1, 1, 1) for k in kernel.unbind(1)]
    for axis, length in ((3, width), (2, height)):
        padding = (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius)
        padded = F.pad(x, padding)
        x = padded.narrow(axis, radius, length) * taps[radius]
        for i, tap in enumerate(taps):
            if i != radius:
                x.addcmul_(padded.narrow(axis, i, length), tap)
    return x


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """x below the threshold, 1 - x from it on."""
    return torch.where(x < _per_image(threshold, x), x, 1 - x)


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
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0))


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
    weights = torch.where((pixel >= 0) & (pixel < extent), weights, 0)
    return weights / weights.sum(2, keepdim=True)


def crop_resize(images: Tensor, boxes: Tensor, size: int, antialias: bool = True) -> Tensor:
    """Cut each image's box and resize it bicubically: (N, C, H, W), (N, 4) to (N, C, size, size).

    boxes hold top, left, height, width in pixels. uint8 gives uint8 (rounded), floats in [0, 1]
    are clipped to it, as bicubic resampling overshoots. The official code resizes without
    antialiasing (`antialias=False`).
    """
    dtype = images.dtype if images.is_floating_point() else torch.float32
    top, left, height, width = boxes.unbind(1)
    rows = resize_weights(top, height, images.shape[2], size, antialias, dtype)  # (N, size, H)
    columns = resize_weights(left, width, images.shape[3], size, antialias, dtype)  # (N, size, W)
    out = rows[:, None] @ images.to(dtype) @ columns[:, None].transpose(2, 3)
    if images.is_floating_point():
        return out.clamp_(0, 1)
    return out.add_(0.5).clamp_(0, 255).to(torch.uint8)
