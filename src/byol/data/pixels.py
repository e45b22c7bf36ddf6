"""Pixel arrays (H, W, C), whatever file they came from: upright, checked, in the channels and the
range that are asked for."""

from typing import NamedTuple

import numpy as np

MAX_PIXELS = 178_956_970  # above it an image is taken for a decompression bomb, as Pillow does
ORIENTATION = 0x0112  # the EXIF and TIFF tag
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as in Pillow


class DecodeError(ValueError):
    """An image that cannot be used; the message is the reason."""


class Pixels(NamedTuple):
    """What a file holds before any conversion of its channels."""

    array: np.ndarray  # (H, W, C) uint8, uint16 or float32
    alpha: bool = False  # the last channel is an opacity, not a measurement


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) without one of the eight EXIF orientations; unknown values change nothing."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def limit(height: int, width: int) -> None:
    """Raises DecodeError for more than MAX_PIXELS, before memory is taken for them."""
    if height * width > MAX_PIXELS:
        raise DecodeError(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS:,}")


def checked(array: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) of any number type to (H, W, C) of uint8, uint16 or float32."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.size == 0:
        raise DecodeError(f"an image has the shape (H, W) or (H, W, C), this one {array.shape}")
    if array.dtype.kind not in "buif":
        raise DecodeError(f"pixels must be numbers, not {array.dtype}")
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise DecodeError("some values are infinite or not a number")
    return array


def convert(pixels: Pixels, channels: int | None) -> np.ndarray:
    """To (H, W, channels), as `byol.data.decode.decode` says; DecodeError where there is no way."""
    array, found = pixels.array, pixels.array.shape[2]
    if channels is None or channels == found:
        return array
    if channels in (1, 3) and pixels.alpha:
        return convert(Pixels(drop_alpha(array)), channels)
    if channels == 3 and found == 1:
        return np.repeat(array, 3, axis=2)
    if channels == 1 and found == 3:
        grey = (array @ _LUMA)[..., None]
        rounded: np.ndarray = grey if array.dtype.kind == "f" else np.rint(grey)
        return rounded.astype(array.dtype)
    raise DecodeError(f"it has {found} channels where {channels} are expected")


def drop_alpha(array: np.ndarray) -> np.ndarray:
    """(H, W, C + 1) with opacity last to (H, W, C) over white, in the same depth."""
    full = 1.0 if array.dtype.kind == "f" else float(np.iinfo(array.dtype).max)
    opacity = array[..., -1:] / full
    over: np.ndarray = array[..., :-1] * opacity + full * (1 - opacity)
    return (over if array.dtype.kind == "f" else np.rint(over)).astype(array.dtype)


def to_crop_pixels(array: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Pixels as the loaders hand them over: uint8 for (0, 255), else float32 in [0, 1].

    value_range is mapped to [0, 1]. In a set of range (0, 255) a stray 16-bit image is brought to
    8 bits by its own full range, and floats are rounded.
    """
    if tuple(value_range) == (0, 255):
        if array.dtype == np.uint8:
            return array
        scaled = array / 257 if array.dtype == np.uint16 else array
        return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    low, high = value_range
    unit = (array.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    clipped: np.ndarray = np.clip(unit, 0, 1)
    return clipped
