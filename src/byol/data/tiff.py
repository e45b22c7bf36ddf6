"""TIFF files with measurements: unusual depths and numbers of channels, stacks of pages."""

import io
from typing import Any

import numpy as np

from byol.data.pixels import ORIENTATION, Pixels, limit, upright


def read_tiff(encoded: bytes) -> Pixels | None:
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
        limit(page.imagelength, page.imagewidth)
        chosen = series if stack else page
        array, axes = np.asarray(chosen.asarray()), chosen.axes
        if array.ndim == 3:
            channel = next(place for place, axis in enumerate(axes) if axis not in "YX")
            array = np.moveaxis(array, channel, -1)
        tag = page.tags.get(ORIENTATION)
    return Pixels(upright(array, int(tag.value) if tag else 1), alpha and colours in (1, 3))
