"""Image operations and resampling against the official code."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from byol import ops

TOLERANCE: dict[torch.dtype, dict[str, Any]] = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-12},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
}
COLOUR: dict[
    str, tuple[Callable[[Tensor, Tensor], Tensor], str]
] = {  # operation and the name of its parameter in the arrays
    "brightness": (ops.adjust_brightness, "delta"),
    "contrast": (ops.adjust_contrast, "factor"),
    "saturation": (ops.adjust_saturation, "factor"),
    "hue": (ops.adjust_hue, "delta"),
    "solarize": (ops.solarize, "threshold"),
}


@pytest.fixture(params=list(TOLERANCE), ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    kind = request.param
    assert isinstance(kind, torch.dtype)
    return kind


def _nchw(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(array).to(dtype).movedim(-1, -3)


def _pixels(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """(M, 3) colours as one image (1, 3, 1, M)."""
    return torch.from_numpy(array).to(dtype).T[None, :, None]


def _assert_images_close(ours: Tensor, official: np.ndarray) -> None:
    np.testing.assert_allclose(ours.movedim(-3, -1), official, **TOLERANCE[ours.dtype])


def _assert_hsv_close(ours: Tensor, official: np.ndarray) -> None:
    """Hue is circular: the difference of hues is taken modulo 1."""
    difference = ours.movedim(1, -1).numpy() - official
    difference[..., 0] -= np.round(difference[..., 0])
    np.testing.assert_allclose(difference, 0, atol=TOLERANCE[ours.dtype]["atol"])


@pytest.mark.parametrize("name", list(COLOUR))
def test_colour_operations(name: str, dtype: torch.dtype, golden: Callable[[str], Any]) -> None:
    data = golden("image_ops")
    operation, parameter = COLOUR[name]
    given = torch.from_numpy(data[f"{name}/{parameter}"]).to(dtype)
    images = _nchw(data["images"], dtype)
    before = images.clone()
    _assert_images_close(operation(images, given), data[f"{name}/output"])
    assert torch.equal(images, before)


def test_grayscale_and_flip(dtype: torch.dtype, golden: Callable[[str], Any]) -> None:
    data = golden("image_ops")
    images = _nchw(data["images"], dtype)
    _assert_images_close(ops.grayscale(images), data["grayscale/output"])
    flipped = ops.horizontal_flip(images, torch.arange(8) % 2 == 0)
    expected = np.where(
        np.arange(8)[:, None, None, None] % 2 == 0, data["flip/output"], data["images"]
    )
    _assert_images_close(flipped, expected)


def test_colour_spaces(golden: Callable[[str], Any]) -> None:
    data = golden("image_ops")
    hsv = ops.rgb_to_hsv(_nchw(data["images"], torch.float64))
    _assert_hsv_close(hsv, data["rgb_to_hsv/output"])
    assert hsv.min() >= 0 and hsv[:, 0].max() < 1 and hsv.max() <= 1
    given = _pixels(data["rgb_to_hsv_outside/input"], torch.float64)
    outside = ops.rgb_to_hsv(given)
    _assert_hsv_close(outside, data["rgb_to_hsv_outside/output"][None, None])
    back = ops.hsv_to_rgb(outside)
    _assert_images_close(back, data["rgb_hsv_rgb_outside/output"][None, None])


def test_colours_from_hsv(dtype: torch.dtype, golden: Callable[[str], Any]) -> None:
    data = golden("image_ops")
    rgb = ops.hsv_to_rgb(_pixels(data["hsv_to_rgb/input"], dtype))
    _assert_images_close(rgb, data["hsv_to_rgb/output"][None, None])


def test_colours_survive_the_way_there_and_back_in_float32(golden: Callable[[str], Any]) -> None:
    images = golden("image_ops")["images"]
    _assert_images_close(ops.hsv_to_rgb(ops.rgb_to_hsv(_nchw(images, torch.float32))), images)


@pytest.mark.parametrize("size", [32, 224])
def test_blur(size: int, dtype: torch.dtype, golden: Callable[[str], Any]) -> None:
    data = golden("image_ops")
    images = _nchw(data["blur/images"], dtype)  # (3, 3, 40, 40)
    sigma = torch.from_numpy(data["blur/sigma"]).to(dtype)  # (S,)
    several = images.repeat(len(sigma), 1, 1, 1)
    before = several.clone()
    blurred = ops.gaussian_blur(
        several, sigma.repeat_interleave(len(images)), ops.blur_kernel_size(size)
    )
    assert torch.equal(several, before)
    _assert_images_close(blurred.unflatten(0, (len(sigma), -1)), data[f"blur/output_size{size}"])


def test_blur_taps(golden: Callable[[str], Any]) -> None:
    data = golden("image_ops")
    ours = [ops.blur_kernel_size(int(size)) for size in data["blur/rule_image_size"]]
    assert ours == data["blur/rule_kernel_taps"].tolist()


def test_one_tap_is_no_blur() -> None:
    x = torch.rand(2, 3, 5, 4)
    torch.testing.assert_close(ops.gaussian_blur(x, torch.tensor([0.1, 2.0]), 1), x)


def test_values_outside_stay_finite() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    colours = torch.cartesian_prod(x, x, x).T[None, :, None]  # (1, 3, 1, 216)
    for operation, _ in COLOUR.values():
        for value in (-1.0, 0.0, 0.5, 2.0):
            assert operation(colours, torch.tensor([value])).isfinite().all()
    for plain in (ops.rgb_to_hsv, ops.hsv_to_rgb, ops.grayscale):
        assert plain(colours).isfinite().all()
    assert ops.gaussian_blur(colours, torch.tensor([0.1]), 5).isfinite().all()


def test_half_precision_keeps_its_type() -> None:
    x = torch.rand(2, 3, 8, 8).bfloat16()
    for operation, _ in COLOUR.values():
        out = operation(x, torch.tensor([0.1, 0.9]))
        assert out.dtype == torch.bfloat16 and out.isfinite().all()
    assert ops.gaussian_blur(x, torch.tensor([0.5, 1.0]), 3).dtype == torch.bfloat16


def test_turns_by_hand() -> None:
    x = torch.tensor([[[[1, 2], [3, 4]]]]).repeat(4, 1, 1, 1)
    turned = ops.quarter_turns(x, torch.arange(4))
    assert turned.flatten(1).tolist() == [[1, 2, 3, 4], [2, 4, 1, 3], [4, 3, 2, 1], [3, 1, 4, 2]]
    upside_down = ops.vertical_flip(x, torch.tensor([True, False, False, False]))
    assert upside_down[:2].flatten(1).tolist() == [[3, 4, 1, 2], [1, 2, 3, 4]]


@pytest.mark.parametrize("case", range(5))
def test_bicubic_resize(case: int, golden: Callable[[str], Any]) -> None:
    data = golden("resize_and_crop")
    image = _nchw(data[f"case{case}/image_uint8"], torch.float64)
    (height, width), sides = image.shape[1:], data[f"case{case}/output_size"]

    def weights(side: int, size: int) -> Tensor:
        start, extent = torch.tensor([0]), torch.tensor([side])
        return ops.resize_weights(start, extent, side, size, False, torch.float64)[0]

    raw = weights(height, int(sides[0])) @ image @ weights(width, int(sides[1])).T
    np.testing.assert_allclose(raw.movedim(0, -1), data[f"case{case}/raw"], rtol=1e-9, atol=1e-9)
    unit = (raw.movedim(0, -1) / 255).clamp(0, 1)
    np.testing.assert_allclose(unit, data[f"case{case}/output"], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(unit, data[f"case{case}/output_table1024"], rtol=0, atol=2e-3)


@pytest.mark.parametrize("case", [0, 2, 3, 4])  # the square ones
def test_crop_resize_without_antialias(case: int, golden: Callable[[str], Any]) -> None:
    data = golden("resize_and_crop")
    pixels = _nchw(data[f"case{case}/image_uint8"], torch.uint8)[None]
    size = int(data[f"case{case}/output_size"][0])
    box = torch.tensor([[0, 0, *pixels.shape[2:]]])
    official = data[f"case{case}/output"][None]
    for dtype in (torch.float64, torch.float32):
        ours = ops.crop_resize(pixels.to(dtype) / 255, box, size, antialias=False)
        _assert_images_close(ours, official)
    rounded = ops.crop_resize(pixels, box, size, antialias=False)
    assert rounded.dtype == torch.uint8
    difference = rounded.movedim(1, -1).numpy() - 255 * official
    np.testing.assert_allclose(difference, 0, atol=0.5 + 1e-3)


def test_a_crop_sees_nothing_beyond_its_box() -> None:
    images = torch.rand(2, 3, 20, 30, dtype=torch.float64)
    boxes = torch.tensor([[3, 5, 11, 17], [0, 20, 20, 10]])
    for antialias in (False, True):
        together = ops.crop_resize(images, boxes, 8, antialias)
        for i, (top, left, height, width) in enumerate(boxes.tolist()):
            cut = images[i : i + 1, :, top : top + height, left : left + width]
            alone = ops.crop_resize(cut, torch.tensor([[0, 0, height, width]]), 8, antialias)
            torch.testing.assert_close(together[i], alone[0])


def test_antialiased_resize_is_that_of_torch() -> None:
    image = torch.rand(1, 3, 60, 41)
    ours = ops.crop_resize(image, torch.tensor([[0, 0, 60, 41]]), 16)
    theirs = torch.nn.functional.interpolate(image, (16, 16), mode="bicubic", antialias=True)
    torch.testing.assert_close(ours, theirs.clamp(0, 1), rtol=0, atol=1e-5)
