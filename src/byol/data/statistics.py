"""What a set of images is like, measured on a sample: channels, depth, mean, deviation, size."""

from dataclasses import dataclass

import numpy as np

from byol import rng
from byol.data.decode import read_pixels
from byol.data.pixels import DecodeError, drop_alpha
from byol.data.source import Source
from byol.errors import UserError

_PIXEL_BUDGET = 200_000_000  # a sample of large photographs ends here, after 32 images at least


@dataclass(frozen=True)
class Statistics:
    """A sample's numbers; mean and std (length channels) are of images scaled to [0, 1]."""

    channels: int
    value_range: tuple[float, float]  # stored values that mean 0 and 1
    mean: list[float]
    std: list[float]
    height_median: int
    width_median: int
    same_size: bool  # of all images in the sample
    bytes_decoded_total_estimate: int  # of the whole set, in the depth that the loaders keep


@dataclass(frozen=True)
class _Measured:
    """One image: means of its values and of their squares, in stored units."""

    height: int
    width: int
    dtype: np.dtype  # type: ignore[type-arg]
    mean: np.ndarray  # (C,) float64
    square: np.ndarray  # (C,) float64
    low: float
    high: float
    convertible: bool  # grey or colour, not a stack of other measurements


def measure(source: Source, sample: int = 512, seed: int = 0) -> Statistics:
    """Measure `sample` images drawn by `seed`; those that cannot be decoded are passed over.

    Channels: 3 where some image has colour and 1 where all are grey, opacity not counted; images
    of another count (2, 4, 13, ...) must all have the same. Range: (0, 255) where some image has
    8 bits, else the lowest and highest value found, or (0, 1) for floats that lie within it.
    """
    order = rng.some(seed, len(source), sample)
    found: list[_Measured] = []
    pixels, reason = 0, ""
    for i in order.tolist():
        try:
            measured = _measure(source.read(i)[0])
        except (DecodeError, OSError) as error:
            reason = f"{source.locate(i)}: {error}"
            continue
        found.append(measured)
        pixels += measured.height * measured.width
        if pixels > _PIXEL_BUDGET and len(found) >= 32:
            break
    if not found:
        raise UserError(
            f"none of {len(order)} images of {source.name} could be read, the last was {reason}"
        )
    return _combine(found, len(source), source.name)


def _measure(encoded: bytes | np.ndarray) -> _Measured:
    array, alpha = read_pixels(encoded)
    if alpha:
        array = drop_alpha(array)
    height, width, channels = array.shape
    flat = array.reshape(-1, channels)
    low, high = float(flat.min()), float(flat.max())
    if array.dtype == np.uint8:
        counts = [np.bincount(flat[:, c], minlength=256) / len(flat) for c in range(channels)]
        values = np.arange(256.0)
        mean = np.array([share @ values for share in counts])
        square = np.array([share @ values**2 for share in counts])
    else:
        mean = flat.mean(0, dtype=np.float64)
        square = np.square(flat, dtype=np.float64).mean(0)
    return _Measured(height, width, array.dtype, mean, square, low, high, channels in (1, 3))


def _combine(found: list[_Measured], n: int, name: str) -> Statistics:
    counts = {len(image.mean) for image in found}
    if len(counts) > 1 and not all(image.convertible for image in found):
        raise UserError(
            f"{name} mixes images of {' and '.join(map(str, sorted(counts)))} channels; all must "
            "have the same number (grey and colour may be mixed)"
        )
    channels = max(counts)
    low, high = value_range = _range(found)
    means, squares = [], []
    for image in found:
        # A 16-bit image in an 8-bit set is brought to 8 bits, as the loaders do.
        shrink = 257.0 if image.dtype == np.uint16 and value_range == (0.0, 255.0) else 1.0
        mean, square = image.mean / shrink, image.square / shrink**2
        means.append(np.broadcast_to((mean - low) / (high - low), (channels,)))
        unit = (square - 2 * low * mean + low**2) / (high - low) ** 2
        squares.append(np.broadcast_to(unit, (channels,)))
    mean = np.mean(means, axis=0)
    std = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 0))
    heights, widths = [image.height for image in found], [image.width for image in found]
    area = float(np.mean([image.height * image.width for image in found]))
    kept = 1 if value_range == (0.0, 255.0) else 4
    return Statistics(
        channels=channels,
        value_range=value_range,
        mean=mean.tolist(),
        std=np.maximum(std, 1e-3).tolist(),  # a constant channel must not divide by 0
        height_median=int(np.median(heights)),
        width_median=int(np.median(widths)),
        same_size=len(set(heights)) == 1 and len(set(widths)) == 1,
        bytes_decoded_total_estimate=int(area * channels * kept * n),
    )


def _range(found: list[_Measured]) -> tuple[float, float]:
    kinds = {image.dtype for image in found}
    if np.dtype(np.uint8) in kinds:
        return 0.0, 255.0
    low = min(image.low for image in found)
    high = max(image.high for image in found)
    if np.dtype(np.float32) in kinds and 0 <= low and high <= 1:
        return 0.0, 1.0
    if low == high:
        return low, low + 1
    # (0, 255) would mean 8 bits.
    return low, 256.0 if (low, high) == (0, 255) else high
