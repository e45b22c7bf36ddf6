"""Encoded image files to pixel arrays (H, W, C), upright and with the channels that are asked for.

JPEG goes through simplejpeg, 16-bit PNG through torchvision (Pillow would drop the lower byte),
TIFF of unusual depth or channel count through tifffile, everything else through Pillow.
"""

import io
import warnings

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from byol.data.jpeg import plain_size, read_jpeg
from byol.data.pixels import (
    ORIENTATION,
    DecodeError,
    Pixels,
    checked,
    convert,
    drop_alpha,
    limit,
    upright,
)
from byol.data.tiff import read_tiff

# Formats by their first bytes: trying one reader after another costs more than a small image.
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP", b"GIF8": "GIF"}


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
    return np.ascontiguousarray(convert(pixels, channels))


def read_pixels(encoded: bytes | np.ndarray, at_least: int | None = None) -> Pixels:
    """Pixels upright, in the file's own channels and depth; DecodeError where there are none."""
    if isinstance(encoded, np.ndarray):
        return Pixels(checked(encoded))
    try:
        found = plain_size(encoded)
        if found and (at_least is None or min(found[:2]) < 2 * at_least):
            height, width, channels = found
            limit(height, width)
            return Pixels(read_jpeg(encoded, channels))
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
    return Pixels(checked(pixels.array), pixels.alpha)


def from_pil(image: Image.Image) -> np.ndarray:
    """A Pillow image to (H, W, C), upright, transparency over white."""
    array, alpha = _pil_pixels(image)
    return drop_alpha(array) if alpha else array


def _read_encoded(encoded: bytes, at_least: int | None) -> Pixels:
    if encoded[:6] == b"\x93NUMPY":
        return Pixels(np.load(io.BytesIO(encoded), allow_pickle=False))
    if encoded[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        tiff = read_tiff(encoded)
        if tiff is not None:
            return tiff
    known = [name for magic, name in _MAGIC.items() if encoded.startswith(magic)]
    with Image.open(io.BytesIO(encoded), formats=known or None) as image:
        limit(image.height, image.width)
        whole = image.size
        if at_least is not None:  # libjpeg computes fewer pixels; other formats stay as they are
            image.draft(None, (at_least, at_least))
        deep = image.format == "PNG" and encoded[24] == 16  # bits a channel
        if deep:
            array = _deep_png(encoded)
            return Pixels(upright(array, _orientation(image)), array.shape[2] in (2, 4))
        if image.format == "JPEG" and image.mode in ("L", "RGB") and image.size == whole:
            array = read_jpeg(encoded, len(image.getbands()))
            return Pixels(upright(array, _orientation(image)))
        return _pil_pixels(image)


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
        return Pixels(upright(drop_alpha(array) if see_through else array, orientation))
    replacement = {"1": "L", "La": "LA", "RGBa": "RGBA"}
    kept = ("L", "LA", "RGB", "RGBA", "F", "I", "I;16", "I;16B", "I;16L")
    mode = replacement.get(image.mode, image.mode if image.mode in kept else "RGB")
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    if mode == "I" and array.min() >= 0 and array.max() <= 65535:
        array = array.astype(np.uint16)  # 16-bit files that Pillow widens
    return Pixels(upright(array, orientation), mode in ("LA", "RGBA"))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1
