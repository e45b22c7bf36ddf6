"""Images and boxes on their way to the detector."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from byol.data.boxes import BoxSource, open_boxes
from byol.errors import UserError
from byol.networks.encoder import Encoder, build_encoder
from byol.tasks.scenes import Resize, Scenes, all_scenes, flipped, resized, training_scenes
from byol.tasks.subject import Subject
from tests import shapes


@pytest.fixture
def subject() -> Subject:
    encoder = Encoder(build_encoder("convnet-1"), (0.5,) * 3, (0.2,) * 3)
    description = {"model": "convnet-1", "in_chans": 3, "image_size": 32}
    return Subject("trained", encoder, description, torch.device("cpu"), "fp32")


def source(tmp_path: Path, count: int = 5) -> BoxSource:
    return open_boxes(shapes.voc(tmp_path, {"train": count, "test": 1}, 48, 32)).train


def _inside(image: Tensor, box: Tensor) -> Tensor:
    left, top, right, bottom = box.round().int().tolist()
    return image[:, top:bottom, left:right]


def test_the_longest_edge_is_resized_and_the_boxes_go_with_it() -> None:
    image = torch.zeros(1, 40, 20)
    image[:, 10:20, 5:15] = 1  # box (5, 10, 15, 20)
    larger, scale = resized(image, 80)
    assert larger.shape == (1, 80, 40) and scale.tolist() == [2, 2, 2, 2]
    box = torch.tensor([5.0, 10, 15, 20]) * scale
    assert _inside(larger, box + torch.tensor([1.0, 1, -1, -1])).min() > 0.99
    assert larger.sum() == pytest.approx(400, rel=1e-3)
    smaller, scale = resized(torch.zeros(1, 33, 100), 50)
    assert smaller.shape == (1, 16, 50)
    torch.testing.assert_close(scale, torch.tensor([0.5, 16 / 33, 0.5, 16 / 33]))


def test_a_flip_takes_the_boxes_with_it() -> None:
    image = torch.zeros(1, 6, 10)
    image[:, 1:3, 2:5] = 1
    mirrored, boxes = flipped(image, torch.tensor([[2.0, 1, 5, 3]]))
    assert boxes.tolist() == [[5, 1, 8, 3]] and _inside(mirrored, boxes[0]).min() == 1


def _same(one: list[Scenes], other: list[Scenes]) -> bool:
    pairs = [pair for a, b in zip(one, other, strict=True) for pair in zip(a.images, b.images)]  # noqa: B905
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def test_batches_depend_on_seed_and_step_alone(tmp_path: Path, subject: Subject) -> None:
    images, resize = source(tmp_path), Resize(32, 64, flips=True)

    def steps(seed: int, start: int) -> list[Scenes]:
        return list(training_scenes(images, subject, resize, 2, seed, start, 6))

    whole = steps(1, 0)
    assert [batch.step for batch in whole] == list(range(6))
    assert _same(whole[2:], steps(1, 2)) and not _same(whole, steps(2, 0))
    sides = {max(image.shape[1:]) for batch in whole for image in batch.images}
    assert len(sides) > 3 and min(sides) >= 32 and max(sides) <= 64
    assert sorted(i for batch in whole for i in batch.index[:2])[0] == 0


def test_boxes_of_a_flipped_and_resized_image_still_hold_its_shapes(
    tmp_path: Path, subject: Subject
) -> None:
    """Shapes are of extreme colours on grey: a box's middle differs from the background."""
    for batch in training_scenes(source(tmp_path), subject, Resize(60, 90, True), 2, 0, 0, 4):
        for image, boxes in zip(batch.images, batch.boxes, strict=True):
            for left, top, right, bottom in boxes["boxes"].tolist():
                middle = image[:, int((top + bottom) / 2), int((left + right) / 2)]
                assert ((middle < 0.2) | (middle > 0.8)).all()


def test_difficult_boxes_are_not_trained_on(tmp_path: Path, subject: Subject) -> None:
    images = source(tmp_path, 1)
    images.boxes[0].ignored[0] = True
    (trained,) = training_scenes(images, subject, Resize(48, 48), 1, 0, 0, 1)
    (scored,) = all_scenes(images, subject, 48, 1)
    count = len(images.boxes[0].classes)
    assert len(trained.boxes[0]["labels"]) == count - 1
    assert scored.boxes[0]["iscrowd"].tolist() == [True] + [False] * (count - 1)
    torch.testing.assert_close(scored.boxes[0]["boxes"], torch.tensor(images.boxes[0].corners))


def test_unreadable_images_are_replaced_in_training_and_left_out_in_scoring(
    tmp_path: Path, subject: Subject
) -> None:
    images = source(tmp_path)
    (tmp_path / "JPEGImages/train002.png").write_bytes(b"broken")
    batches = list(training_scenes(images, subject, Resize(48, 48), 5, 0, 0, 1))
    assert len(batches[0].images) == 5 and 2 not in batches[0].index
    bad: list[str] = []
    assert [i for batch in all_scenes(images, subject, 48, 2, bad) for i in batch.index] == [
        0, 1, 3, 4,
    ]  # fmt: skip
    assert len(bad) == 1 and "train002.png" in bad[0]
    for i in range(5):
        (tmp_path / f"JPEGImages/train00{i}.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="could not be"):
        list(all_scenes(images, subject, 48, 2))
