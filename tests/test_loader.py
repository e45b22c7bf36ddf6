"""Which images form a step, and where they are cropped."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from byol import ops
from byol.data.loader import CropSpec, ResidentLoader, crop_boxes, official_size, positions


@pytest.mark.parametrize("batch_size", [3, 10, 25])
def test_every_image_once_an_epoch(batch_size: int) -> None:
    """Also where batches cross the end of an epoch, or are larger than the set."""
    steps = [positions(7, 10, batch_size, step) for step in range(12)]
    epoch, index = (np.concatenate(part) for part in zip(*steps, strict=True))
    for e in range(len(epoch) // 10):
        assert sorted(index[epoch == e].tolist()) == list(range(10))
    np.testing.assert_array_equal(epoch, np.arange(len(epoch)) // 10)
    assert (index[:10] != index[10:20]).any()


def test_a_step_is_a_function_of_its_number() -> None:
    forwards = [positions(7, 100, 8, step) for step in range(40)]
    for step in (39, 0, 12, 13, 25):  # in any order, whatever was remembered
        for ours, before in zip(positions(7, 100, 8, step), forwards[step], strict=True):
            np.testing.assert_array_equal(ours, before)
    assert (positions(8, 100, 8, 0)[1] != forwards[0][1]).any()


def test_sets_whose_order_does_not_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byol.rng.DRAWN_WHOLE", 20)
    steps = [positions(7, 21, 10, step) for step in range(5)]
    epoch, index = (np.concatenate(part) for part in zip(*steps, strict=True))
    for e in (0, 1):
        assert sorted(index[epoch == e].tolist()) == list(range(21))
    assert (index[:21] != index[21:42]).any()


def test_official_crop_sizes(golden: Callable[[str], Any]) -> None:
    height, width, area, log_aspect, h, w = golden("resize_and_crop")["random_crop_size"].T
    ours = official_size(height.astype(int), width.astype(int), area, log_aspect)
    np.testing.assert_array_equal(ours, (h, w))


def _boxes(height: int, width: int, count: int, rule: str, spec: CropSpec) -> np.ndarray:
    sides = np.full(count, height), np.full(count, width)
    return crop_boxes(*sides, 3, np.zeros(count, int), np.arange(count), 0, spec, rule)


@pytest.mark.parametrize("rule", ["official", "torchvision"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (375, 500), (20, 400), (1, 1), (2, 90)])
def test_boxes_lie_inside(rule: str, height: int, width: int) -> None:
    top, left, h, w = _boxes(height, width, 2000, rule, CropSpec()).T
    assert min(top.min(), left.min()) >= 0 and min(h.min(), w.min()) >= 1
    assert (top + h).max() <= height and (left + w).max() <= width


def test_torchvision_crops_keep_to_their_bounds() -> None:
    top, left, h, w = _boxes(300, 400, 4000, "torchvision", CropSpec((0.2, 0.6), (0.5, 2.0))).T
    share, ratio = h * w / (300 * 400), w / h
    assert 0.195 < share.min() and share.max() < 0.605
    assert 0.49 < ratio.min() and ratio.max() < 2.04
    for start, room in ((top, 300 - h), (left, 400 - w)):  # uniform over the room there is
        place = (start + 0.5) / (room + 1)
        assert place.mean() == pytest.approx(0.5, abs=4.5 / np.sqrt(12 * 4000))


def test_torchvision_falls_back_to_the_centre() -> None:
    """No attempt at the whole area fits a narrow image: the largest centred crop of ratio 4/3."""
    wide = _boxes(30, 400, 5, "torchvision", CropSpec((1.0, 1.0)))
    assert wide.tolist() == [[0, 180, 30, 40]] * 5
    tall = _boxes(400, 30, 5, "torchvision", CropSpec((1.0, 1.0)))
    assert tall.tolist() == [[180, 0, 40, 30]] * 5


def test_official_whole_area_of_a_square_is_cut_to_it() -> None:
    boxes = _boxes(32, 32, 500, "official", CropSpec((1.0, 1.0)))
    assert (boxes[:, 2:].max(1) == 32).all()
    assert boxes[:, 2:].min() >= 27  # 32 sqrt(3/4)


def test_views_draw_their_crops_independently() -> None:
    side, zeros, index = np.full(3000, 200), np.zeros(3000, int), np.arange(3000)
    one, two = (crop_boxes(side, side, 3, zeros, index, v, CropSpec()) for v in (0, 1))
    between = np.corrcoef(one.T, two.T)[:4, 4:]
    assert abs(between).max() < 4.5 / np.sqrt(3000)


def _loader(images: torch.Tensor, **changes: Any) -> ResidentLoader:
    labels = torch.arange(len(images)) % 4
    settings: dict[str, Any] = {
        "size": 8, "crops": (CropSpec(), CropSpec((0.5, 1.0))), "batch_size": 6, "seed": 2,
    }  # fmt: skip
    return ResidentLoader(images, labels, **{**settings, **changes})


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_resident_loader_starts_anywhere(kind: str) -> None:
    images = torch.randint(0, 256, (10, 3, 12, 16), dtype=torch.uint8)
    if kind == "float":
        images = images / 255
    through = list(_loader(images).batches(0, 7))
    assert len(through) == 7 and not list(_loader(images).batches(7, 7))
    for step, batch in enumerate(_loader(images).batches(4, 7), 4):
        assert torch.equal(batch.crops, through[step].crops)
        assert batch.crops.shape == (6, 2, 3, 8, 8) and batch.crops.dtype == images.dtype
        assert batch.labels.tolist() == (batch.index % 4).tolist()
        epoch, index = positions(2, 10, 6, step)
        np.testing.assert_array_equal(batch.index, index)
        np.testing.assert_array_equal(batch.epoch, epoch)


@pytest.mark.parametrize("rule", ["official", "torchvision"])
def test_resident_crops_are_the_boxes_resized(rule: str) -> None:
    images = torch.rand(10, 1, 12, 16)
    loader = _loader(images, rule=rule, antialias=False)
    (batch,) = loader.batches(3, 4)
    height, width = np.full(6, 12), np.full(6, 16)
    for view in (0, 1):
        boxes = crop_boxes(
            height, width, 2, batch.epoch, batch.index, view, loader.crops[view], rule
        )
        expected = ops.crop_resize(images[batch.index], torch.from_numpy(boxes), 8, False)
        torch.testing.assert_close(batch.crops[:, view], expected)
