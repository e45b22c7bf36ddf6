"""Pairs cut by the same draws: by hand, against torchvision, and whole batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from byol import rng
from byol.data.dense import (
    CENTRAL,
    CUT_STREAM,
    Cut,
    DenseBatch,
    PairReader,
    central_batches,
    cut_pair,
    training_batches,
    usable,
)
from byol.data.pairs import Pairs, open_pairs
from byol.errors import UserError
from byol.tasks.segment import highest_class
from tests.scenes import write_voc

CPU = torch.device("cpu")
GREY = torch.tensor([0.5])


def _board(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image whose values are those of its map."""
    numbers = torch.arange(height * width).reshape(height, width)
    return numbers[None].float(), numbers


def _cut(size: tuple[int, int], u: tuple[float, ...], **options: object) -> tuple[Tensor, Tensor]:
    image, map_ = _board(4, 6)
    cut = Cut(size, 255, **options)  # type: ignore[arg-type]
    return cut_pair(image, map_, cut, np.array(u), GREY)


def test_crops_by_hand() -> None:
    for u, top, left in ((CENTRAL, 1, 2), ((0, 0, 0, 1), 0, 0), ((0, 0.999, 0.999, 1), 2, 4)):
        image, map_ = _cut((2, 2), u)
        expected = _board(4, 6)[1][top : top + 2, left : left + 2]
        assert torch.equal(map_, expected) and torch.equal(image[0], expected.float())


def test_a_small_image_is_filled_up() -> None:
    """Height 4 in 7 rows: (7 - 4) // 2 or one more above; width 6 cropped to 4."""
    image, map_ = _cut((7, 4), CENTRAL)
    rows = (map_ != 255).all(1)
    assert rows.tolist() == [False, False, True, True, True, True, False]
    assert torch.equal(map_[2:6], _board(4, 6)[1][:, 1:5])
    assert (image[0][~rows] == 0.5).all() and torch.equal(image[0][2:6], map_[2:6].float())


def test_a_flip_turns_both() -> None:
    for draw, flips in ((0.4, True), (0.6, False)):
        image, map_ = _cut((4, 6), (0, 0, 0, draw), flips=True)
        expected = _board(4, 6)[1]
        assert torch.equal(map_, expected.flip(1) if flips else expected)
        assert torch.equal(image[0], map_.float())


def test_scaling_is_torchvisions() -> None:
    """Bilinear and antialiased for the image, nearest for the map, within drawn factors."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    image, map_ = torch.rand(3, 24, 36), torch.randint(0, 9, (24, 36))
    for draw, factor in ((0.0, 0.5), (0.5, 1.25), (1.0, 2.0)):
        size = [round(24 * factor), round(36 * factor)]
        cut = Cut((size[0], size[1]), 255, scales=(0.5, 2.0))
        scaled, classes = cut_pair(image, map_, cut, np.array([draw, 0, 0, 1]), torch.zeros(3))
        torch.testing.assert_close(scaled, resize(image, size, antialias=True))
        expected = resize(map_[None], size, InterpolationMode.NEAREST_EXACT)[0]
        assert torch.equal(classes, expected)


def test_the_papers_depth_geometry() -> None:
    """640 x 480 is halved, of which the centre 304 x 228 is left."""
    map_ = torch.arange(640.0).repeat(480, 1)
    cut = Cut((228, 304), 0, side=240)
    image, cut_map = cut_pair(map_[None], map_, cut, np.array(CENTRAL), GREY)
    assert image.shape == (1, 228, 304) and cut_map.shape == (228, 304)
    left = (320 - 304 + 1) // 2  # of the halved image
    assert cut_map[0, 0] in (2 * left, 2 * left + 1)
    assert (cut_map.diff(dim=1) == 2).all()
    torch.testing.assert_close(image[0, :, 5:-5], cut_map[:, 5:-5], atol=0.51, rtol=0)


def _reader(root: Path, fill: float = 0.5) -> PairReader:
    return PairReader(open_pairs(root, "classes")["train"], 3, (0, 255), (fill,) * 3)


def test_batches_do_not_depend_on_workers_or_on_where_they_begin(tmp_path: Path) -> None:
    reader = _reader(write_voc(tmp_path / "voc", 5, 1))
    cut = Cut((40, 40), 255, scales=(0.5, 2.0), flips=True)

    def read(start: int, workers: int) -> list[DenseBatch]:
        return list(training_batches(reader, cut, 3, 7, start, 4, workers, CPU))

    whole = read(0, 0)
    assert len(whole) == 4 and whole[0].images.shape == (3, 3, 40, 40)
    assert whole[0].images.dtype == torch.float32 and whole[0].maps.dtype == torch.int64
    for other in (read(2, 0), read(0, 1)[2:]):
        for one, two in zip(whole[2:], other, strict=True):
            assert torch.equal(one.images, two.images) and torch.equal(one.maps, two.maps)
    first = whole[1]  # of the second epoch in part
    assert first.epoch.tolist() == [0, 0, 1]
    u = rng.uniforms(7, CUT_STREAM, first.epoch, first.index, 4)
    image, mask = reader.read(int(first.index[2]))
    fill = torch.full((3,), 128.0)
    expected = cut_pair(image, mask, cut, u[2], fill)
    assert torch.equal(first.images[2], expected[0].float() / 255)
    assert torch.equal(first.maps[2], expected[1].long())


def test_central_batches_are_in_order(tmp_path: Path) -> None:
    reader = _reader(write_voc(tmp_path / "voc", 5, 1))
    found = list(central_batches(reader, Cut((80, 50), 255), 2, 0, CPU))
    assert [batch.index.tolist() for batch in found] == [[0, 1], [2, 3], [4]]
    image, mask = reader.read(4)
    assert torch.equal(found[2].maps[0, 8:72], mask[:, 7:57].long())
    assert torch.equal(found[2].images[0, :, 8:72], image[:, :, 7:57].float() / 255)
    assert (found[2].images[0, :, :8] == 128 / 255).all() and (found[2].maps[0, :8] == 255).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_pairs_are_listed_and_too_many_refused(tmp_path: Path, workers: int) -> None:
    root = write_voc(tmp_path / "voc", 30, 1)
    masks = root / "SegmentationClass"
    Image.new("L", (64, 64), 255).save(masks / "2007_000003.png")
    Image.new("L", (60, 64), 0).save(masks / "2007_000009.png")
    (root / "JPEGImages" / "2007_000012.jpg").write_bytes(b"nonsense")
    pairs, highest, bad = usable(_reader(root), highest_class, workers)
    assert len(pairs) == 27 and highest == [2] * 27
    assert [pairs.locate(i)[-7:-4] for i in (2, 3, 7, 8, 9, 10)] == [
        "002", "004", "008", "010", "011", "013"
    ]  # fmt: skip
    assert len(bad) == 3 and "2007_000003.jpg: its mask is empty" in bad[0]
    assert "2007_000009.jpg: the image has 64 x 64 pixels and its map 60 x 64" in bad[1]
    assert "2007_000012.jpg: it is not an image" in bad[2]
    (masks / "2007_000020.png").unlink()
    with pytest.raises(UserError, match="4 of 30 pairs .* cannot be used"):
        usable(_reader(root), highest_class, workers)


def test_a_pair_lost_during_training_is_one_sentence(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", 2, 1)
    reader = _reader(root)
    (root / "SegmentationClass" / "2007_000001.png").unlink()
    with pytest.raises(UserError, match="2007_000001.png does not exist"):
        list(training_batches(reader, Cut((40, 40), 255), 2, 0, 0, 1, 0, CPU))


def test_measurements_keep_their_range() -> None:
    """16-bit images of a set of range (0, 4000), and the fill, are in [0, 1]."""
    pixels, depth = np.full((8, 8, 1), 1000, np.uint16), np.ones((8, 8), np.float32)

    def read(place: int) -> tuple[np.ndarray, np.ndarray]:
        return pixels, depth

    reader = PairReader(Pairs("frames", (0,), read), 1, (0, 4000), (0.75,))
    (batch,) = central_batches(reader, Cut((8, 10), 0), 1, 0, CPU)
    expected = torch.full((8, 10), 0.25)
    expected[:, [0, 9]] = 0.75
    assert torch.equal(batch.images[0, 0], expected) and batch.maps.dtype == torch.float32
