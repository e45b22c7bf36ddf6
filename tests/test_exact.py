"""The fast path of the views beside a float64 reference written as the formulas are."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from byol import ops, views
from byol.data.decode import decode
from byol.data.files import cut
from byol.viewspec import T_PRIME, T, ViewSpec

FLOAT = 1e-5  # the bar of the float path; what is found is below 2e-6
SIZES = (32, 50, 96, 224)  # small ones go in groups, larger ones alone; 50 is no multiple of 16


def _images(count: int, size: int, seed: int = 0) -> Tensor:
    """Pixels (N, 3, S, S) uint8 with greys, pure colours and ties of channels among them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), np.uint8)
    pixels[:, :, :3] = pixels[:, :1, :3]
    pixels[:, 1, 3:5] = pixels[:, 2, 3:5]
    pixels[:, :, 5:7] = np.where(pixels[:, :, 5:7] > 127, 255, 0)
    return torch.from_numpy(pixels)


def _saturation(x: Tensor, factor: float) -> Tensor:
    hue, saturation, value = ops.rgb_to_hsv(x).unbind(1)
    return ops.hsv_to_rgb(torch.stack((hue, (saturation * factor).clamp(0, 1), value), 1))


def _hue(x: Tensor, delta: float) -> Tensor:
    hue, saturation, value = ops.rgb_to_hsv(x).unbind(1)
    return ops.hsv_to_rgb(torch.stack(((hue + delta) % 1, saturation, value), 1))


def _contrast(x: Tensor, factor: float) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def _blur(x: Tensor, sigma: float, most: float = np.inf) -> Tensor:
    """All taps up to `most` pixels away in both directions, as one matrix a side."""
    size, radius = x.shape[2], int(min(ops.blur_kernel_size(x.shape[2]) // 2, most))
    apart = torch.arange(size)[:, None] - torch.arange(size)[None]
    taps = torch.exp(-(torch.arange(-radius, radius + 1).double() ** 2) / (2 * sigma**2))
    weights = torch.exp(-(apart.double() ** 2) / (2 * sigma**2)) / taps.sum()
    band = torch.where(apart.abs() <= radius, weights, 0)
    return band @ x @ band.T


REFERENCE: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda x, delta: x + delta, _contrast, _saturation, _hue,
)  # fmt: skip


def _literal(crop: Tensor, spec: ViewSpec, epoch: int, index: int, view: int) -> Tensor:
    """The view of one crop (C, S, S) uint8 in float64, an operation after another."""
    d = views.draw(spec, 7, np.array([epoch]), np.array([index]), view)
    x = crop[None].double() / 255
    x = x.flip(3) if d.flip[0] else x
    for k in d.order[0] if d.jitter[0] else ():
        x = REFERENCE[k](x, float(d.jitter_params[0, k])).clamp(0, 1)
    if d.grey[0]:
        x = (x * torch.tensor(ops.GREY_WEIGHTS).double()[:, None, None]).sum(1, True).expand_as(x)
    if d.blur[0]:
        x = _blur(x, float(d.sigma[0]))
    if d.solarize[0]:
        x = torch.where(x < d.threshold[0], x, 1 - x)
    return x.clamp(0, 1)[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("hue", [0.1, 0.5])
def test_whole_views(size: int, hue: float) -> None:
    count = 24 if size < 96 else 6
    crops = _images(2 * count, size).unflatten(0, (count, 2))
    specs = replace(T, hue=hue), replace(T_PRIME, hue=hue, blur=0.5, saturation=0.8, solarize=0.3)
    epoch, index = np.arange(count) % 3, np.arange(count)
    for v, view in enumerate(views.make_views(crops, specs, 7, epoch, index)):
        assert view.is_contiguous(memory_format=torch.channels_last)
        for i in range(count):
            expected = _literal(crops[i, v], specs[v], int(epoch[i]), i, v)
            assert (view[i].double() - expected).abs().max() < FLOAT


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("k", range(4), ids=["brightness", "contrast", "saturation", "hue"])
def test_colours(k: int, count: int) -> None:
    """Also where one image is worked on with plain numbers, and for the largest shifts."""
    ours = (ops.adjust_brightness, ops.adjust_contrast, ops.adjust_saturation, ops.adjust_hue)[k]
    x = _images(count, 40) / 255
    for value in (-1.0, -0.5, -0.34, -0.12, 0.0, 0.1, 0.126, 0.3, 0.5, 0.9, 1.0, 1.2, 2.0):
        if k in (1, 2) and value < 0:
            continue
        parameters = torch.tensor([value, 0.1, 0.4][:count])
        expected = [REFERENCE[k](x[i : i + 1].double(), float(parameters[i])) for i in range(count)]
        found = ours(x, parameters)
        assert (found - torch.cat(expected)).abs().max() < 2e-6
        assert torch.equal(ours(x.clone(), parameters, out=(same := x.clone())), same)
        assert torch.equal(ours(same := x.clone(), parameters, out=same), found)


@pytest.mark.parametrize("size", SIZES)
def test_blur_and_solarize(size: int) -> None:
    x = _images(4, size) / 255
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0])
    found = ops.gaussian_blur(x, sigma, ops.blur_kernel_size(size))
    expected = torch.cat([_blur(x[i : i + 1].double(), float(sigma[i])) for i in range(4)])
    assert (found - expected).abs().max() < 2e-6
    for threshold in (0.5, 0.3):
        literal = torch.where(x < threshold, x, 1 - x)
        assert torch.equal(ops.solarize(x, torch.full((4,), threshold)), literal)


@pytest.mark.parametrize("size", SIZES)
def test_blur_within_three_sigma(size: int) -> None:
    """Farther taps weigh at most 0.00102 an axis up to the paper's largest sigma: half a level of
    255 where all that they see is white and all else black."""
    x = _images(4, size) / 255
    x[3] = 1.0  # with a black square as large as what the cut blur of sigma 2 sees
    x[3, :, size // 2 - 6 : size // 2 + 7, size // 2 - 6 : size // 2 + 7] = 0
    sigma, taps = torch.tensor([0.1, 0.5, 1.0, 2.0]), ops.blur_kernel_size(size)
    found = ops.gaussian_blur(x, sigma, taps, cut=True)
    reach = [1, 2, 3, 6]
    expected = [_blur(x[i : i + 1].double(), float(sigma[i]), reach[i]) for i in range(4)]
    assert (found - torch.cat(expected)).abs().max() < 2e-6
    apart = 255 * (found - ops.gaussian_blur(x, sigma, taps)).abs().max()
    assert (0.50 if size == 224 else 0) <= apart < 0.53
    assert size > 32 or apart == 0  # three taps are within 3 sigma, rounded up, for any sigma


def test_views_blurred_within_three_sigma(data_dir: Path) -> None:
    """Photographs have no such places: less than a tenth of a level."""
    files = sorted((data_dir / "photos/train").glob("*/*_005.jpg"))
    arrays = [torch.from_numpy(decode(file.read_bytes(), 3)) for file in files]  # (H, W, C)
    whole = [cut(x.permute(2, 0, 1)[None], np.array([0, 0, *x.shape[:2]]), 224) for x in arrays]
    crops, index = torch.stack(whole)[:, None].expand(-1, 2, -1, -1, -1), np.arange(len(whole))
    exact, less = (
        torch.stack(views.make_views(crops, (T, T_PRIME), 0, index, index, cut=cut_off))
        for cut_off in (False, True)
    )
    apart = 255 * (less - exact).abs()
    assert len(whole) >= 8 and 0 < apart.max() < 0.1 and apart.mean() < 0.002


def test_blurs_leave_nothing_to_those_after_them() -> None:
    """The memory they are done in is kept: for one shape, of any sigma, in each thread."""
    x = _images(1, 96).expand(2, 3, 96, 96) / 255
    with torch.inference_mode():
        ops.gaussian_blur(x.new_ones(2, 3, 96, 96), torch.tensor([2.0, 2.0]), 9)

    def blurred(sigma: float) -> Tensor:
        found = [ops.gaussian_blur(x, torch.tensor([sigma, 2.0]), 9)[0] for _ in range(20)]
        assert all(torch.equal(one, found[0]) for one in found)
        return found[0]

    sigmas = (0.1, 0.5, 1.0, 2.0)
    with ThreadPoolExecutor(4) as pool:
        for sigma, found in zip(sigmas, pool.map(blurred, sigmas), strict=True):
            expected = ops.gaussian_blur(x[:1].double(), torch.tensor([sigma]), 9)[0]
            assert (found - expected).abs().max() < 2e-6


@pytest.mark.parametrize(("box", "size"), [
    ((0, 0, 60, 80), 32), ((7, 9, 40, 31), 32), ((3, 2, 20, 17), 48), ((5, 5, 50, 60), 49),
])  # fmt: skip
def test_crops_of_bytes(box: tuple[int, int, int, int], size: int) -> None:
    """Crops from memory are rounded once. The exception is F.interpolate: it rounds and clips after
    each of its two passes (bytes in between are what makes it fast), so half a level of the first
    reaches the second times its absolute weights, at most 1.2; and where the first overshoots black
    or white, what is cut off is missing."""
    at = torch.tensor([box])
    for low, high in ((64, 192), (0, 256)):
        pixels = np.random.default_rng(1).integers(low, high, (60, 80, 3), np.uint8)
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        exact = 255 * ops.crop_resize(image.double() / 255, at, size)[0]
        resident, cropped = ops.crop_resize(image, at, size)[0], cut(image, np.array(box), size)
        assert resident.dtype == cropped.dtype == torch.uint8
        assert (resident.double() - exact).abs().max() < 0.501
        if low:  # leaves room for overshooting
            assert (cropped.double() - exact).abs().max() < 0.5 * 1.2 + 0.5
            assert (cropped.double() - exact).mean().abs() < 0.02
