"""The Gaussian blur: passes over a batch where it has few taps, else matrix products an image."""

import threading
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_LEFT_OUT = 1e-6  # what the taps that are not computed may weigh together
_BLOCK = 16  # outputs a matrix product makes from 16 + taps - 1 inputs
_MANY = 9  # taps from which on products are faster than passes over the images


def blur_kernel_size(image_size: int) -> int:
    """Taps of the blur for images of this height in pixels: 23 at 224, 3 at 32, 1 (none) at 16."""
    return 2 * int(image_size / 10 / 2) + 1


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


class _Blur:
    """Memory and views of it to blur images (C, H, W) of one shape by `taps` taps.

    The memory is kept, as its borders stay zero and views of it cost as much as a small product.
    Pixels lie as (H, C, W), so that a row is one long line; all lines begin and end with zeros.
    """

    def __init__(self, shape: torch.Size, taps: int, dtype: torch.dtype) -> None:
        channels, height, width = shape
        radius, reach = taps // 2, _BLOCK + taps - 1
        down, across = -(-height // _BLOCK), -(-width // _BLOCK)  # blocks
        wide = across * _BLOCK + 2 * radius
        line = channels * wide
        padded = torch.zeros(down * _BLOCK + 2 * radius, channels, wide, dtype=dtype)
        lines = torch.zeros(down, _BLOCK, line, dtype=dtype)  # blurred vertically
        self.inside = padded[radius : radius + height, :, radius : radius + width].transpose(0, 1)
        self.rows = padded.as_strided((down, reach, line), (_BLOCK * line, line, 1))
        self.lines = lines
        self.columns = lines.as_strided(
            (across, down * _BLOCK * channels, reach), (_BLOCK, wide, 1)
        )
        band = torch.zeros(_BLOCK, reach, dtype=dtype)  # of the blur's matrix
        self.diagonals = band.as_strided((_BLOCK, taps), (reach + 1, 1))
        self.down, self.across = band.expand(down, -1, -1), band.T.expand(across, -1, -1)

    def __call__(self, image: Tensor, kernel: np.ndarray) -> Tensor:
        """(C, H, W) blurred by kernel (taps,)."""
        channels, height, width = image.shape
        self.diagonals.copy_(torch.from_numpy(kernel))
        self.inside.copy_(image)
        torch.bmm(self.down, self.rows, out=self.lines)
        across, lines, _ = self.columns.shape
        out = image.new_empty(lines, across, _BLOCK)
        torch.bmm(self.columns, self.across, out=out.transpose(0, 1))
        return out.view(-1, channels, across * _BLOCK)[:height, :, :width].transpose(0, 1)


@lru_cache(32)
def _blur_of(shape: torch.Size, taps: int, dtype: torch.dtype, thread: int) -> _Blur:
    return _Blur(shape, taps, dtype)


def _blur_in_blocks(image: Tensor, kernel: np.ndarray) -> Tensor:
    """(C, H, W) blurred by kernel (taps,) as products with a band of _BLOCK rows of its matrix."""
    if image.dtype == torch.float32:
        outer = 2 * kernel.cumsum()[: len(kernel) // 2]  # weigh the outermost 1, 2, ... tap pairs
        cut = np.count_nonzero(outer < _LEFT_OUT)
        kernel = kernel[cut : len(kernel) - cut]
    blur = _blur_of(image.shape, len(kernel), image.dtype, threading.get_ident())
    return blur(image, kernel)
