"""Views without branches are the views of `views.make_views`."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from byol import gated, views
from byol.viewspec import PRESETS, T

INDEX, EPOCH = np.arange(24), np.arange(24) // 7


def _crops(channels: int, size: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    crops = torch.rand(24, 2, channels, size, size, generator=generator)
    return (crops * 255).to(torch.uint8) if dtype == torch.uint8 else crops


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_the_same_views(preset: str) -> None:
    expected = views.make_views(_crops(3, 48), PRESETS[preset], 3, EPOCH, INDEX)
    made = gated.make_views(_crops(3, 48), PRESETS[preset], 3, EPOCH, INDEX, compiled=False)
    for ours, theirs in zip(made, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
        assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.0, 5 / 3, 2.0])
def test_a_cut_blur_leaves_out_the_same_taps(sigma: float) -> None:
    """Also where 3 sigma is a whole number but for rounding."""
    spec = replace(T, blur_sigma_min=sigma, blur_sigma_max=sigma, jitter=0)
    given = (_crops(3, 160)[:6], (spec, spec), 3, EPOCH[:6], INDEX[:6])
    made = gated.make_views(*given, compiled=False, cut=True)
    for ours, theirs in zip(made, views.make_views(*given, cut=True), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_and_floats(channels: int) -> None:
    specs = PRESETS["medical"]
    crops = _crops(channels, 33, torch.float32)
    expected = views.make_views(crops, specs, 3, EPOCH, INDEX)
    for ours, theirs in zip(
        gated.make_views(crops, specs, 3, EPOCH, INDEX, compiled=False), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_operations_that_nobody_draws_change_nothing() -> None:
    still = replace(T, flip=0, jitter=0, grey=0, blur=0, solarize=0)
    crops = _crops(3, 32)
    view1, _ = gated.make_views(crops, (still, still), 3, EPOCH, INDEX, compiled=False)
    assert torch.equal(view1, crops[:, 0].float() / 255)


@pytest.mark.slow
def test_compiled_views_are_the_same() -> None:
    arguments = (_crops(3, 48), PRESETS["natural"], 3, EPOCH, INDEX)
    plain, compiled = (gated.make_views(*arguments, compiled=c) for c in (False, True))
    for ours, theirs in zip(compiled, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
