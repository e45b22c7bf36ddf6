"""Every kind of file comes out upright and in the channels and the depth that are asked for."""

import io
import struct
import sys
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import simplejpeg
import tifffile
import torch
from PIL import Image

from byol.data import pixels as pixels_module
from byol.data.decode import decode, read_pixels
from byol.data.files import cut
from byol.data.jpeg import plain_size
from byol.data.pixels import DecodeError, drop_alpha, to_crop_pixels


def _encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _tiff(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _png(width: int, height: int) -> bytes:
    """The header of a PNG without pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + body + struct.pack(">I", 0) + b"IDAT" + b"\x35\xaf\x06\x1e"


def _variant(data_dir: Path, name: str) -> bytes:
    return (data_dir / "photos_variants" / name).read_bytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_come_out_alike(data_dir: Path, orientation: int) -> None:
    upright = decode(_variant(data_dir, "orient_1.jpg")).astype(int)
    image = decode(_variant(data_dir, f"orient_{orientation}.jpg"))
    assert image.shape == upright.shape == (211, 256, 3) and image.flags.c_contiguous
    assert np.abs(image - upright).mean() < 4  # JPEG noise, encoded in other directions
    assert np.allclose(image[6:10, 6:10].mean((0, 1)), (252, 2, 1), atol=4)  # the red square


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("grey.jpg", (300, 220, 1), np.uint8),
        ("cmyk.jpg", (261, 300, 3), np.uint8),
        ("alpha.png", (162, 200, 4), np.uint8),
        ("palette.png", (165, 240, 3), np.uint8),
        ("palette.gif", (165, 240, 3), np.uint8),
        ("palette_transparent.png", (200, 192, 3), np.uint8),
        ("grey16.png", (179, 200, 1), np.uint16),
        ("rgb16.png", (129, 160, 3), np.uint16),
        ("progressive.jpg", (300, 170, 3), np.uint8),
        ("photo.webp", (300, 170, 3), np.uint8),
        ("wide.jpg", (24, 266, 3), np.uint8),
        ("tiny.png", (6, 8, 3), np.uint8),
        ("UPPER.JPEG", (300, 266, 3), np.uint8),
    ],
)
def test_kinds_of_files(
    data_dir: Path, name: str, shape: tuple[int, int, int], dtype: type[np.generic]
) -> None:
    encoded = _variant(data_dir, name)
    image = decode(encoded)
    assert image.shape == shape and image.dtype == dtype
    assert decode(encoded, 3).shape == (*shape[:2], 3)
    assert decode(encoded, 1).shape == (*shape[:2], 1)


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("grey.jpg", "bonsai/bonsai_005.jpg"),
        ("cmyk.jpg", "butterfly/butterfly_006.jpg"),
        ("palette.gif", "pizza/pizza_005.jpg"),
        ("rgb16.png", "laptop/laptop_005.jpg"),
        ("photo.webp", "kangaroo/kangaroo_005.jpg"),
    ],
)
def test_kinds_look_like_their_original(data_dir: Path, name: str, original: str) -> None:
    encoded = _variant(data_dir, name)
    image = to_crop_pixels(decode(encoded, 1), (0, 255)).astype(float)
    photo = Image.fromarray(decode((data_dir / "photos/train" / original).read_bytes(), 1)[..., 0])
    same = np.asarray(photo.resize((image.shape[1], image.shape[0])), float)
    assert np.corrcoef(image[..., 0].ravel(), same.ravel())[0, 1] > 0.95
    assert abs(image.mean() - same.mean()) < 6


def test_16_bit_keeps_its_depth(data_dir: Path) -> None:
    assert np.all(decode(_variant(data_dir, "grey16.png")) % 257 == 0)
    assert decode(_variant(data_dir, "rgb16.png")).max() > 60_000


def test_transparency_is_over_white(data_dir: Path) -> None:
    image = decode(_variant(data_dir, "palette_transparent.png"), 3)
    assert np.all(image[:20] == 255)
    half = Image.new("RGBA", (2, 2), (0, 100, 200, 128))
    assert decode(_encoded(half), 3)[0, 0].tolist() == [127, 177, 227]
    assert decode(_encoded(half)).shape == (2, 2, 4) and read_pixels(_encoded(half)).alpha
    assert decode(_encoded(Image.new("LA", (2, 2), (0, 0))), 1).tolist() == [[[255]] * 2] * 2
    keyed = _encoded(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))
    assert np.all(decode(keyed, 3) == 255)
    assert drop_alpha(np.array([[[0.5, 0.5]]], np.float32)).tolist() == [[[0.75]]]


def test_colour_to_grey_and_back() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)
    assert decode(colours, 1)[0, :, 0].tolist() == [76, 150, 29, 9]
    assert np.array_equal(decode(colours[..., :1], 3), colours[..., :1].repeat(3, 2))


def test_arrays_of_any_type() -> None:
    assert decode(np.ones((2, 3), bool)).tolist() == [[[255]] * 3] * 2
    assert decode(np.zeros((2, 3, 13), np.float64)).dtype == np.float32
    assert decode(np.zeros((2, 3, 2), ">u2")).dtype == np.dtype("uint16")
    file = io.BytesIO()
    np.save(file, np.arange(24, dtype=np.uint16).reshape(2, 3, 4))
    assert decode(file.getvalue(), 4)[1, 2].tolist() == [20, 21, 22, 23]


@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        ((5, 7, 1), np.uint16, {}),
        ((5, 7, 1), np.float32, {"compression": "zlib"}),
        ((5, 7, 3), np.uint16, {"photometric": "rgb"}),
        ((5, 7, 3), np.uint8, {"photometric": "rgb"}),
        ((5, 7, 4), np.uint8, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        ((5, 7, 2), np.float32, {"photometric": "minisblack", "planarconfig": "contig"}),
        ((5, 7, 13), np.uint16, {"photometric": "minisblack", "planarconfig": "contig"}),
    ],
)
def test_tiff(shape: tuple[int, ...], dtype: type[np.generic], options: dict[str, object]) -> None:
    array = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    image = decode(_tiff(array, **options))
    assert image.dtype == dtype and np.array_equal(image, array)
    assert not read_pixels(_tiff(array, **options)).alpha


def test_tiff_with_channels_first_and_as_pages() -> None:
    array = (np.random.default_rng(0).random((13, 5, 7)) * 200).astype(np.uint16)
    planar = _tiff(array, photometric="minisblack", planarconfig="separate")
    for encoded in (planar, _tiff(array)):
        assert np.array_equal(decode(encoded), np.moveaxis(array, 0, -1))
    pages = _encoded(
        Image.new("L", (7, 5), 3), "TIFF", save_all=True, append_images=[Image.new("L", (7, 5))]
    )
    assert decode(pages).shape == (5, 7, 1) and decode(pages).max() == 3  # the first page


def test_bad_files_give_a_reason(data_dir: Path) -> None:
    broken = data_dir / "photos_broken"
    with pytest.raises(DecodeError, match="truncated"):
        decode((broken / "truncated.jpg").read_bytes())
    with pytest.raises(DecodeError, match="not an image"):
        decode((broken / "not_an_image.jpg").read_bytes())


def test_stray_bytes_cost_no_image() -> None:
    """Some cameras leave them; the strict decoder refuses them."""
    drawn = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    encoded = _encoded(Image.fromarray(drawn), "JPEG")
    place = encoded.index(b"\xff\xda")
    stray = encoded[:place] + b"\0" * 9 + encoded[place:]
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(stray)
    assert np.array_equal(decode(stray), decode(encoded))


@pytest.mark.parametrize(
    ("encoded", "channels", "reason"),
    [
        (b"", None, "not an image"),
        (_png(30_000, 30_000), None, "decompression bomb|more than the limit"),
        (_png(13, 13)[:-6], None, "."),
        (np.zeros((4, 4, 2), np.uint8), 3, "has 2 channels where 3 are expected"),
        (np.zeros((4, 4, 3), np.uint8), 4, "has 3 channels where 4 are expected"),
        (np.zeros((4, 0, 3), np.uint8), None, "shape"),
        (np.full((4, 4), np.nan), None, "not a number"),
        (np.zeros((4, 4), complex), None, "numbers"),
        (_tiff(np.zeros((8, 8), np.uint16))[:60], None, "."),
    ],
)
def test_unusable_images(encoded: bytes | np.ndarray, channels: int | None, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode(encoded, channels)


def test_pixel_limit_holds_for_every_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels_module, "MAX_PIXELS", 80)
    image = Image.new("L", (9, 9))
    for encoded in (_encoded(image), _encoded(image, "JPEG"), _tiff(np.zeros((9, 9), np.uint16))):
        with pytest.raises(DecodeError, match="9 x 9 pixels"):
            decode(encoded)


def test_crop_pixels() -> None:
    eight = np.array([[[0], [255]]], np.uint8)
    assert to_crop_pixels(eight, (0, 255)) is eight
    deep = np.array([[[100], [300], [900]]], np.uint16)
    assert to_crop_pixels(deep, (100, 500))[0, :, 0].tolist() == [0, 0.5, 1]
    assert to_crop_pixels(deep, (100, 500)).dtype == np.float32
    stray = np.array([[[0], [257 * 7], [65535]]], np.uint16)
    assert to_crop_pixels(stray, (0, 255))[0, :, 0].tolist() == [0, 7, 255]


def test_a_plain_jpeg_is_told_by_its_header(data_dir: Path) -> None:
    """The rest goes through Pillow: what EXIF turns, CMYK, what is no JPEG, and what is cut off."""
    photo = next((data_dir / "photos/train").rglob("*.jpg")).read_bytes()
    with Image.open(io.BytesIO(photo)) as image:
        pixels, size = image.convert("RGB"), (image.height, image.width)
    for mode in ("RGB", "L"):
        for progressive in (False, True):
            encoded = _encoded(pixels.convert(mode), "JPEG", progressive=progressive)
            assert plain_size(encoded) == (*size, 3 if mode == "RGB" else 1)
            with Image.open(io.BytesIO(encoded)) as image:
                expected = np.asarray(image).reshape(*size, -1).astype(int)
            assert np.abs(decode(encoded).astype(int) - expected).max() <= 1
    assert plain_size(_variant(data_dir, "orient_6.jpg")) is None
    assert plain_size(_variant(data_dir, "cmyk.jpg")) is None
    assert plain_size(_variant(data_dir, "tiny.png")) is None
    header = encoded[: encoded.index(b"\xff\xda")]
    for length in range(0, len(header), 7):
        assert plain_size(header[:length]) is None


@pytest.mark.parametrize(
    ("size", "at_least", "expected"),
    [
        ((500, 375), 448, (375, 500)),
        ((1200, 895), 448, (895, 1200)),  # half of it would be 447
        ((1200, 896), 448, (448, 600)),
        ((897, 1203), 448, (602, 449)),
        ((4000, 3000), 448, (750, 1000)),
        ((4000, 3000), 64, (375, 500)),  # an eighth is the least
    ],
)
def test_reduced_jpeg_keeps_so_many_pixels(
    size: tuple[int, int], at_least: int, expected: tuple[int, int]
) -> None:
    for mode in ("RGB", "L", "CMYK"):
        encoded = _encoded(Image.new(mode, size), "JPEG")
        assert decode(encoded, 3, at_least).shape == (*expected, 3)


def test_only_large_jpegs_are_reduced(data_dir: Path) -> None:
    for file in sorted((data_dir / "photos_variants").glob("*.*g*")):
        encoded = file.read_bytes()
        full = read_pixels(encoded).array
        for at_least in (min(full.shape[:2]) // 2 + 1, 3):
            array = read_pixels(encoded, at_least).array
            is_reduced = encoded[:2] == b"\xff\xd8" and at_least == 3
            assert np.array_equal(array, full) != is_reduced, file.name
    photo = Image.fromarray(read_pixels(_variant(data_dir, "progressive.jpg")).array)
    for kind in ("PNG", "WEBP", "TIFF", "BMP"):
        encoded = _encoded(photo, kind)
        assert np.array_equal(decode(encoded, at_least=32), decode(encoded))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_jpegs_come_out_upright(data_dir: Path, orientation: int) -> None:
    encoded = _variant(data_dir, f"orient_{orientation}.jpg")
    half = decode(encoded, at_least=100)
    assert half.shape == (106, 128, 3)
    assert np.allclose(half[3:5, 3:5].mean((0, 1)), (252, 2, 1), atol=4)  # the red square
    with pytest.raises(DecodeError, match="truncated"):
        decode(encoded[: len(encoded) // 2], at_least=100)


@pytest.mark.parametrize(("share", "mean", "most"), [(1.0, 0.4, 8), (0.28, 1.3, 30)])
def test_crops_of_reduced_jpegs(data_dir: Path, share: float, mean: float, most: float) -> None:
    """224 pixels of the whole of an enlarged photograph, and of the 8 % in its centre: levels of
    255 by which they differ from those of the full decode."""
    for name in ("pizza/pizza_005.jpg", "grand_piano/grand_piano_005.jpg"):
        photo = Image.fromarray(decode((data_dir / "photos/train" / name).read_bytes()))
        encoded = _encoded(photo.resize((1200, 900), Image.Resampling.BICUBIC), "JPEG", quality=90)
        crops = []
        for at_least, height in ((None, 900), (448, 450)):
            image = torch.from_numpy(decode(encoded, 3, at_least).copy()).permute(2, 0, 1)[None]
            assert image.shape[2] == height
            high = int(height * share) // 6 * 6
            top = (height - high) // 2
            box = np.array([top, top * 4 // 3, high, high * 4 // 3])
            crops.append(cut(image, box, 224).float())
        apart = (crops[1] - crops[0]).abs()
        assert apart.mean() < mean and apart.max() <= most


def test_deep_png_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision announces that its decoders will go."""
    monkeypatch.setitem(sys.modules, "torchvision.io", ModuleType("torchvision.io"))
    deep = io.BytesIO()
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(deep, "PNG")
    with pytest.raises(DecodeError, match="decode_png, which this torchvision lacks: store"):
        decode(deep.getvalue())
    assert decode(_encoded(Image.new("RGB", (8, 8)), "JPEG")).shape == (8, 8, 3)
