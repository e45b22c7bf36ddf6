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


def gaussian_blur(x: Tensor, sigma: Tensor, kernel_size: int, cut: bool = False) -> Tensor:
    """Separable Gaussian of `kernel_size` (odd) taps, sigma (N,) in pixels.

    Horizontal and vertical; zero padding without renormalisation, so that borders darken as in
    the official code. cut: without the taps beyond ceil(3 sigma) pixels; the rest sum to 1.
    """
    deviation = sigma.double().cpu().numpy()[:, None]
    single = deviation.astype(np.float32)  # as on a GPU, so that both leave out the same
    reach = np.ceil(3 * single) if cut else np.full_like(single, np.inf)  # (N, 1)
    radius = int(min(kernel_size // 2, reach.max()))
    offset = np.arange(-radius, radius + 1)  # (taps,)
    kernels = np.exp(-(offset**2) / (2 * deviation**2)) * (abs(offset) <= reach)  # (N, taps)
    kernels /= kernels.sum(1, keepdims=True)
    if len(offset) >= _MANY and x.device.type == "cpu":
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
    """Memory to blur images (C, H, W) of one shape, one after another, by up to 2 border + 1 taps.

    It is kept, as its borders stay zero and making views of it costs as much as a small product.
    Pixels lie as (H, C, W), so that a row is one long line; all lines begin and end with zeros.
    """

    def __init__(self, shape: torch.Size, border: int, dtype: torch.dtype) -> None:
        channels, height, width = shape
        self.border, self.blocks = border, (-(-height // _BLOCK), -(-width // _BLOCK))
        down, across = (_BLOCK * count for count in self.blocks)
        wide = across + 2 * border
        self.padded = torch.zeros(down + 2 * border, channels, wide, dtype=dtype)
        self.lines = torch.zeros(self.blocks[0], _BLOCK, channels * wide, dtype=dtype)
        inside = slice(border, border + height), slice(None), slice(border, border + width)
        self.inside = self.padded[inside].transpose(0, 1)
        self.views = lru_cache(self._views)

    def _views(self, taps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What blocks of rows and of columns of outputs see; the band of the blur's matrix for
        them, and its diagonals."""
        reach, skipped = _BLOCK + taps - 1, self.border - taps // 2
        (down, across), line = self.blocks, self.lines.shape[2]
        _, channels, wide = self.padded.shape
        rows = self.padded.as_strided((down, reach, line), (_BLOCK * line, line, 1), skipped * line)
        columns = self.lines.as_strided(
            (across, down * _BLOCK * channels, reach), (_BLOCK, wide, 1), skipped
        )
        band = torch.zeros(_BLOCK, reach, dtype=self.lines.dtype)
        return rows, columns, band, band.as_strided((_BLOCK, taps), (reach + 1, 1))

    def __call__(self, image: Tensor, kernel: np.ndarray) -> Tensor:
        """(C, H, W) blurred by kernel (taps,)."""
        channels, height, width = image.shape
        rows, columns, band, diagonals = self.views(len(kernel))
        diagonals.copy_(torch.from_numpy(kernel))
        self.inside.copy_(image)
        torch.bmm(band.expand(len(rows), -1, -1), rows, out=self.lines)
        out = image.new_empty(columns.shape[1], len(columns), _BLOCK)
        torch.bmm(columns, band.T.expand(len(columns), -1, -1), out=out.transpose(0, 1))
        return out.view(-1, channels, len(columns) * _BLOCK)[:height, :, :width].transpose(0, 1)


@lru_cache(8)
def _memory(shape: torch.Size, border: int, dtype: torch.dtype, thread: int) -> _Blur:
    return _Blur(shape, border, dtype)


def _blur_in_blocks(image: Tensor, kernel: np.ndarray) -> Tensor:
    """(C, H, W) blurred by kernel (taps,) as products with a band of _BLOCK rows of its matrix."""
    border = len(kernel) // 2
    if image.dtype == torch.float32:
        outer = 2 * kernel.cumsum()[:border]  # weigh the outermost 1, 2, ... tap pairs
        cut = np.count_nonzero(outer < _LEFT_OUT)
        kernel = kernel[cut : len(kernel) - cut]
    with torch.inference_mode(False):  # else what is kept could not be written to outside of it
        return _memory(image.shape, border, image.dtype, threading.get_ident())(image, kernel)
