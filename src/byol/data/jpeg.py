"""JPEG files: what their header says, and their pixels."""

import io
import struct

import numpy as np
from PIL import Image


def plain_size(encoded: bytes) -> tuple[int, int, int] | None:
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


def read_jpeg(encoded: bytes, channels: int) -> np.ndarray:
    """(H, W, channels), 1 or 3, as it lies in the file."""
    import simplejpeg

    array: np.ndarray
    try:
        array = simplejpeg.decode_jpeg(encoded, "GRAY" if channels == 1 else "RGB")
    except ValueError:  # also of stray bytes that cost no pixel, which Pillow forgives
        with Image.open(io.BytesIO(encoded)) as image:
            array = np.array(image).reshape(image.height, image.width, -1)
    return array
