"""Encoded image files to pixel arrays (H, W, C), upright and with the channels that are asked for.

JPEG goes through simplejpeg, 16-bit PNG through torchvision (Pillow would drop the lower byte),
TIFF of unusual depth or channel count through tifffile, everything else through Pillow.
"""

import io
import struct
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 178_956_970  # above it an image is taken for a decompression bomb, as Pillow does
_ORIENTATION = 0x0112  # the EXIF and TIFF tag
# Formats by their first bytes: trying one reader after another costs more than a small image.
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP", b"GIF8": "GIF"}
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as in Pillow


class DecodeError(ValueError):
    """An image that cannot be used; the message is the reason."""


class Pixels(NamedTuple):
    """What a file holds before any conversion of its channels."""

    array: np.ndarray  # (H, W, C) uint8, uint16 or float32
    alpha: bool = False  # the last channel is an opacity, not a measurement


def decode(
    encoded: bytes | np.ndarray, channels: int | None = None, at_least: int | None = None
) -> np.ndarray:
    """An encoded file or a pixel array to (H, W, C), uint8, uint16 or float32, C-contiguous.

    channels=None keeps what the file has (palette and CMYK become RGB). 1 and 3 are reached by
    conversion: transparency over white, colour to grey by ITU-R 601, grey repeated. Any other
    count must be the file's own. at_least: a JPEG is decoded at the least of 1/8, 1/4, 1/2 and 1 of
    its size that leaves each side so many pixels. DecodeError says what is wrong with the image.
    """
    pixels = read_pixels(encoded, at_least)
    return np.ascontiguousarray(_convert(pixels, channels))


def read_pixels(encoded: bytes | np.ndarray, at_least: int | None = None) -> Pixels:
    """Pixels upright, in the file's own channels and depth; DecodeError where there are none."""
    if isinstance(encoded, np.ndarray):
        return Pixels(_checked(encoded))
    try:
        found = _plain_jpeg(encoded)
        if found and (at_least is None or min(found[:2]) < 2 * at_least):
            height, width, channels = found
            _limit(height, width)
            return Pixels(_jpeg(encoded, channels))
        with warnings.catch_warnings():  # a strange but readable file is no news
            warnings.simplefilter("ignore")
            pixels = _read_encoded(encoded, at_least)
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError("it is not an image in a known format") from error
    except Exception as error:  # on damaged bytes the decoders raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason.startswith("decode_"):  # torchvision puts the place in its source before it
            reason = reason.rsplit(", ", 1)[-1]
        raise DecodeError(reason) from error
    return Pixels(_checked(pixels.array), pixels.alpha)


def from_pil(image: Image.Image) -> np.ndarray:
    """A Pillow image to (H, W, C), upright, transparency over white."""
    array, alpha = _pil_pixels(image)
    return drop_alpha(array) if alpha else array


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


def _read_encoded(encoded: bytes, at_least: int | None) -> Pixels:
    if encoded[:6] == b"\x93NUMPY":
        return Pixels(np.load(io.BytesIO(encoded), allow_pickle=False))
    if encoded[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        tiff = _tiff(encoded)
        if tiff is not None:
            return tiff
    known = [name for magic, name in _MAGIC.items() if encoded.startswith(magic)]
    with Image.open(io.BytesIO(encoded), formats=known or None) as image:
        _limit(image.height, image.width)
        whole = image.size
        if at_least is not None:  # libjpeg computes fewer pixels; other formats stay as they are
            image.draft(None, (at_least, at_least))
        deep = image.format == "PNG" and encoded[24] == 16  # bits a channel
        if deep:
            array = _deep_png(encoded)
            return Pixels(_upright(array, _orientation(image)), array.shape[2] in (2, 4))
        if image.format == "JPEG" and image.mode in ("L", "RGB") and image.size == whole:
            array = _jpeg(encoded, len(image.getbands()))
            return Pixels(_upright(array, _orientation(image)))
        return _pil_pixels(image)


def _plain_jpeg(encoded: bytes) -> tuple[int, int, int] | None:
    """Height, width and channels of a JPEG in grey or three colours that says nothing of an
    orientation, from its header; None for everything else, which Pillow looks into."""
    place, size = 2, None
    while encoded[:2] == b"\xff\xd8" and place + 9 < len(encoded) and encoded[place] == 0xFF:
        kind = encoded[place + 1]
        if kind == 0xDA:  # the pixels begin
            return size
        if kind == 0xE1:  # EXIF, maybe
            return None
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a frame
            if encoded[place + 9] not in (1, 3):
                return None
            size = struct.unpack_from(">HHB", encoded, place + 5)
        place += 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
    return None


def _jpeg(encoded: bytes, channels: int) -> np.ndarray:
    """(H, W, channels), 1 or 3, as it lies in the file."""
    import simplejpeg

    array: np.ndarray
    try:
        array = simplejpeg.decode_jpeg(encoded, "GRAY" if channels == 1 else "RGB")
    except ValueError:  # also of stray bytes that cost no pixel, which Pillow forgives
        with Image.open(io.BytesIO(encoded)) as image:
            array = np.array(image).reshape(image.height, image.width, -1)
    return array


def _deep_png(encoded: bytes) -> np.ndarray:
    """A PNG of 16 bits a channel."""
    try:
        from torchvision.io import decode_png
    except ImportError as error:
        raise DecodeError(
            "PNG of 16 bits a channel needs torchvision.io.decode_png, which this torchvision "
            "lacks: store the images as TIFF"
        ) from error
    image: torch.Tensor = decode_png(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
    array: np.ndarray = image.permute(1, 2, 0).numpy()  # (H, W, C)
    return array


def _pil_pixels(image: Image.Image) -> Pixels:
    orientation = _orientation(image)
    transparent = "transparency" in image.info
    if image.mode in ("P", "PA") or (transparent and image.mode in ("1", "L", "RGB")):
        see_through = transparent or image.mode == "PA"
        image = image.convert("RGBA" if see_through else "RGB")
        array = np.asarray(image)
        return Pixels(_upright(drop_alpha(array) if see_through else array, orientation))
    replacement = {"1": "L", "La": "LA", "RGBa": "RGBA"}
    kept = ("L", "LA", "RGB", "RGBA", "F", "I", "I;16", "I;16B", "I;16L")
    mode = replacement.get(image.mode, image.mode if image.mode in kept else "RGB")
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    if mode == "I" and array.min() >= 0 and array.max() <= 65535:
        array = array.astype(np.uint16)  # 16-bit files that Pillow widens
    return Pixels(_upright(array, orientation), mode in ("LA", "RGBA"))


def _tiff(encoded: bytes) -> Pixels | None:
    """Measurements from a TIFF: first page, or the stack that tifffile wrote; None: for Pillow."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(encoded)) as tiff:
        page: Any = tiff.pages[0]
        series: Any = tiff.series[0]
        # Axis C, S or Q counts channels; I, Z or T counts pages, of which the first is taken.
        stack = len(series.shape) == 3 and bool(set(series.axes) & set("CSQ"))
        alpha = any(extra in (1, 2) for extra in page.extrasamples)
        pictures = ("RGB", "PALETTE", "YCBCR", "SEPARATED", "MINISBLACK", "MINISWHITE")
        colours = page.samplesperpixel - alpha
        single = not stack or len(series.pages) == 1
        picture = page.photometric.name in pictures and single and page.bitspersample <= 8
        expected = {"RGB": 3, "YCBCR": 3, "SEPARATED": 4}.get(page.photometric.name, 1)
        if picture and page.dtype in (np.uint8, np.bool_, None) and colours == expected:
            return None
        _limit(page.imagelength, page.imagewidth)
        chosen = series if stack else page
        array, axes = np.asarray(chosen.asarray()), chosen.axes
        if array.ndim == 3:
            channel = next(place for place, axis in enumerate(axes) if axis not in "YX")
            array = np.moveaxis(array, channel, -1)
        tag = page.tags.get(_ORIENTATION)
    return Pixels(_upright(array, int(tag.value) if tag else 1), alpha and colours in (1, 3))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undo one of the eight EXIF orientations; unknown values leave the array as it is."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _limit(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise DecodeError(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS:,}")


def _checked(array: np.ndarray) -> np.ndarray:
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


def _convert(pixels: Pixels, channels: int | None) -> np.ndarray:
    array, found = pixels.array, pixels.array.shape[2]
    if channels is None or channels == found:
        return array
    if channels in (1, 3) and pixels.alpha:
        return _convert(Pixels(drop_alpha(array)), channels)
    if channels == 3 and found == 1:
        return np.repeat(array, 3, axis=2)
    if channels == 1 and found == 3:
        grey = (array @ _LUMA)[..., None]
        rounded: np.ndarray = grey if array.dtype.kind == "f" else np.rint(grey)
        return rounded.astype(array.dtype)
    raise DecodeError(f"it has {found} channels where {channels} are expected")
