"""Channels, range, mean, deviation and size of a set, measured on a sample."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol.data.source import open_source
from byol.data.statistics import measure
from byol.errors import UserError


def test_eight_bit_arrays_by_value() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), np.uint8)
    found = measure(open_source(images))
    assert (found.channels, found.value_range, found.same_size) == (3, (0, 255), True)
    assert (found.height_median, found.width_median) == (6, 5)
    assert found.bytes_decoded_total_estimate == images.size
    np.testing.assert_allclose(found.mean, images.mean((0, 1, 2)) / 255)
    np.testing.assert_allclose(found.std, images.std((0, 1, 2)) / 255)


@pytest.mark.parametrize(
    ("channels", "dtype", "low", "high", "value_range"),
    [
        (1, np.uint16, 300, 4000, (300, 4000)),
        (13, np.uint16, 0, 255, (0, 256)),  # (0, 255) would say 8 bits
        (2, np.float32, -3, 5, (-3, 5)),
        (4, np.float64, 0.25, 0.75, (0, 1)),
    ],
)
def test_other_depths(
    channels: int, dtype: type[np.generic], low: float, high: float, value_range: tuple[float, ...]
) -> None:
    drawn = np.random.default_rng(0).uniform(low, high, (9, 4, 4, channels))
    drawn[0, 0, 0, 0], drawn[0, 0, 1, 0] = low, high
    images = drawn.astype(dtype)
    found = measure(open_source(images))
    assert (found.channels, found.value_range) == (channels, value_range)
    unit = (images.astype(float) - value_range[0]) / (value_range[1] - value_range[0])
    np.testing.assert_allclose(found.mean, unit.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.std, unit.std((0, 1, 2)), rtol=1e-4)
    assert found.bytes_decoded_total_estimate == 4 * images.size


def test_grey_files_have_one_channel_and_opacity_is_none(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 51).save(tmp_path / "a.png")
    Image.new("LA", (4, 4), (51, 255)).save(tmp_path / "b.png")
    assert measure(open_source(tmp_path)).channels == 1
    Image.new("RGBA", (4, 4), (51, 51, 102, 255)).save(tmp_path / "c.png")
    found = measure(open_source(tmp_path))
    assert found.channels == 3 and np.allclose(found.mean, [0.2, 0.2, (0.2 + 0.2 + 0.4) / 3])


def test_a_constant_set_has_a_deviation() -> None:
    assert min(measure(open_source(np.full((3, 4, 4), 7, np.uint8))).std) > 0
    assert measure(open_source(np.full((3, 4, 4), 7, np.uint16))).value_range == (7, 8)


def test_mixed_counts_are_refused(tmp_path: Path) -> None:
    for i, channels in enumerate((2, 3)):
        np.save(tmp_path / f"{i}.npy", np.zeros((4, 4, channels), np.uint8))
    with pytest.raises(UserError, match="mixes images of 2 and 3 channels"):
        measure(open_source(tmp_path))


def test_real_files(data_dir: Path) -> None:
    found = measure(open_source(data_dir / "photos_variants"))
    assert (found.channels, found.value_range, found.same_size) == (3, (0, 255), False)
    assert all(0.4 < mean < 0.7 for mean in found.mean)  # the 16-bit files count as the others
    cifar = measure(open_source(data_dir / "cifar10"), sample=2000)
    np.testing.assert_allclose(cifar.mean, (0.4914, 0.4822, 0.4465), atol=0.01)
    np.testing.assert_allclose(cifar.std, (0.2470, 0.2435, 0.2616), atol=0.01)
    assert cifar.bytes_decoded_total_estimate == 50_000 * 32 * 32 * 3


def test_bad_files_are_passed_over(data_dir: Path) -> None:
    with pytest.raises(UserError, match="none of 2 images .* could be read, the last was"):
        measure(open_source(data_dir / "photos_broken"))
    both = open_source([data_dir / "photos_broken", data_dir / "photos_variants"])
    assert measure(both).channels == 3
