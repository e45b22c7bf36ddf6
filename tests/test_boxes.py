"""Readers of images with boxes: both layouts by value, and what is wrong in them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from byol.data.boxes import BoxSplits, open_boxes
from byol.data.pixels import DecodeError
from byol.errors import UserError
from tests.shapes import xml


def _image(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (9, 9, 9)).save(path)


def voc(root: Path, **notes: str) -> Path:
    """Images a (train) and b (test) with a dog each; `notes` replaces annotations by name."""
    dog = xml(40, 30, [("dog", 1, 1, 10, 20)])
    for name, split in (("a", "train"), ("b", "test")):
        _image(root / f"JPEGImages/{name}.jpg")
        for folder in ("Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / f"Annotations/{name}.xml").write_text(notes.get(name, dog))
        (root / f"ImageSets/Main/{split}.txt").write_text(name + "\n")
    return root


def coco(root: Path, split: str = "train", **changes: Any) -> Path:
    """An instances_SPLIT.json as COCO's, beside the folder SPLIT."""
    content: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "x.jpg", "width": 40, "height": 30},
            {"id": 3, "file_name": "empty.jpg", "width": 40, "height": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [2.5, 3, 10, 4], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 5, "name": "cat"}],
    }
    file = root / f"annotations/instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content | changes))
    for image in ("x.jpg", "empty.jpg"):
        _image(root / split / image)
    return file


def test_voc_corners_count_from_one_and_difficult_boxes_are_marked(tmp_path: Path) -> None:
    note = xml(40, 30, [("dog", 1, 1, 1, 1), ("cat", 11, 6, 40, 30)])
    note = note.replace("<difficult>0", "<difficult>1", 1)
    found = open_boxes(voc(tmp_path, a=note))
    boxes = found.train.boxes[0]
    assert found.train.names == ["cat", "dog"] and len(found.train) == len(found.test) == 1
    assert boxes.corners.tolist() == [[0, 0, 1, 1], [10, 5, 40, 30]]
    assert boxes.classes.tolist() == [1, 0] and boxes.ignored.tolist() == [True, False]
    assert found.test.boxes[0].corners.tolist() == [[0, 0, 10, 20]]
    encoded, index = found.train.read(0)
    assert encoded == (tmp_path / "JPEGImages/a.jpg").read_bytes() and index == 0


def test_coco_boxes_have_sizes_crowds_are_marked_and_an_image_without_boxes_stays(
    tmp_path: Path,
) -> None:
    coco(tmp_path)
    coco(tmp_path, "val", categories=[{"id": 5, "name": "cat"}, {"id": 18, "name": "dog"}])
    found = open_boxes(tmp_path)
    first, background = found.train.boxes
    assert found.train.names == ["dog", "cat"] == found.test.names
    assert first.corners.tolist() == [[2.5, 3, 12.5, 7], [0, 0, 40, 30]]
    assert first.classes.tolist() == [0, 1] and first.ignored.tolist() == [False, True]
    assert background.corners.shape == (0, 4) and found.train.locate(1).endswith("empty.jpg")
    assert found.test.name.endswith("val")


def test_one_json_file_for_training_and_one_for_scoring(tmp_path: Path) -> None:
    train, test = coco(tmp_path / "one"), coco(tmp_path / "two", "val")
    found = open_boxes(train, test)
    assert found.train.locate(0) == str(tmp_path / "one/train/x.jpg")
    assert found.test.locate(0) == str(tmp_path / "two/val/x.jpg")


def test_json_files_of_exporters_lie_beside_their_images(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        file = coco(tmp_path, split)
        shutil.move(file, tmp_path / split / "_annotations.coco.json")
    found = open_boxes(tmp_path)
    assert found.train.locate(0) == str(tmp_path / "train/x.jpg")
    assert found.test.locate(0) == str(tmp_path / "valid/x.jpg")


@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        (("train", "val", "trainval", "test"), None, ("trainval", "test")),
        (("train", "val", "trainval"), None, ("train", "val")),
        (("train", "test"), None, ("train", "test")),
        (("fold1", "fold2"), "fold2:fold1", ("fold2", "fold1")),
        (("train", "val", "test", "dog_train", "dog_test"), None, ("train", "test")),
    ],
)
def test_splits(
    tmp_path: Path, there: tuple[str, ...], asked: str | None, expected: tuple[str, str]
) -> None:
    voc(tmp_path)
    shutil.rmtree(tmp_path / "ImageSets/Main")
    for name in there:
        (tmp_path / "ImageSets/Main").mkdir(exist_ok=True)
        (tmp_path / f"ImageSets/Main/{name}.txt").write_text("a  1\nb -1\n")
    found = open_boxes(tmp_path, split=asked)
    assert (found.train.name, found.test.name) == tuple(f"{tmp_path} {name}" for name in expected)


def test_the_folder_above_a_voc_folder_will_do(tmp_path: Path) -> None:
    voc(tmp_path / "VOC2007")
    assert open_boxes(tmp_path).train.locate(0) == str(tmp_path / "VOC2007/JPEGImages/a.jpg")


def test_bad_boxes_are_clipped_or_left_out_and_listed_with_their_file(tmp_path: Path) -> None:
    note = xml(
        40, 30,
        [("dog", 1, 1, 10, 20), ("dog", -3, 1, 45, 20), ("dog", 20, 1, 10, 20),
         ("dog", 5, 6, 5, 5), ("dog", 50, 1, 60, 20)],
    )  # fmt: skip
    note = note.replace("</annotation>", "<object><name>dog</name></object></annotation>")
    found = open_boxes(voc(tmp_path, a=note))
    assert found.train.boxes[0].corners.tolist() == [[0, 0, 10, 20], [0, 0, 40, 20]]
    (clipped,), skipped = found.log.clipped, found.log.skipped
    assert len(skipped) == 4 and all("a.xml" in line for line in (clipped, *skipped))
    assert "no four corners" in skipped[0] and "inverted" in skipped[1] and "outside" in skipped[3]


def test_unusable_coco_annotations_are_left_out_and_listed(tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = [
        {"image_id": 7, "category_id": 18, "bbox": [0, 0, 5, 5]},
        {"image_id": 99, "category_id": 18, "bbox": [0, 0, 5, 5]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5]},
        {"image_id": 7, "category_id": 18, "bbox": [0, 0, 5]},
        {"image_id": 7, "category_id": 18, "bbox": [0, 0, float("nan"), 5]},
        {"image_id": 7, "category_id": 18, "bbox": [3, 3, 0, 5]},
    ]
    coco(tmp_path, annotations=entries)
    coco(tmp_path, "val")
    found = open_boxes(tmp_path)
    assert found.train.boxes[0].corners.tolist() == [[0, 0, 5, 5]]
    assert len(found.log.skipped) == 5
    assert all("instances_train.json" in line for line in found.log.skipped)


def test_empty_and_damaged_annotations(tmp_path: Path) -> None:
    """No object: background. No XML, or one that could expand without bound: left out."""
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>' + xml(40, 30, []).replace(
        "<size>", "<folder>&b;</folder><size>"
    )
    voc(tmp_path)
    for name, note in (("c", xml(40, 30, [])), ("d", "<annot"), ("e", bomb)):
        _image(tmp_path / f"JPEGImages/{name}.jpg")
        (tmp_path / f"Annotations/{name}.xml").write_text(note)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nc\nd\ne\n")
    found = open_boxes(tmp_path)
    assert [len(boxes.classes) for boxes in found.train.boxes] == [1, 0]
    assert [line.split()[0].rpartition("/")[2] for line in found.log.skipped] == ["d.xml", "e.xml"]
    assert "document type" in found.log.skipped[1]


def test_an_image_of_another_size_than_annotated_is_not_read(tmp_path: Path) -> None:
    found = open_boxes(voc(tmp_path))
    _image(tmp_path / "JPEGImages/a.jpg", 30, 40)
    with pytest.raises(DecodeError, match="30 x 40 pixels, its annotation says 40 x 30"):
        found.train.read(0)
    (tmp_path / "JPEGImages/b.jpg").write_bytes(b"no image")
    with pytest.raises(DecodeError, match="not an image"):
        found.test.read(0)


def test_the_size_of_an_annotation_without_one_is_that_of_the_upright_image(tmp_path: Path) -> None:
    voc(tmp_path, a=xml(0, 0, [("dog", 1, 1, 35, 40)]))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    Image.new("RGB", (40, 35)).save(tmp_path / "JPEGImages/a.jpg", exif=exif)
    found = open_boxes(tmp_path)
    assert found.train.boxes[0].corners.tolist() == [[0, 0, 35, 40]] and not found.log.clipped
    found.train.read(0)


def _wrong(root: Path, what: str) -> BoxSplits:
    if what == "nothing":
        return open_boxes(root)
    if what == "no json":
        (root / "a.json").write_text("{")
        return open_boxes(root / "a.json", root / "a.json")
    if what == "other json":
        (root / "a.json").write_text('{"images": []}')
        return open_boxes(root / "a.json", root / "a.json")
    if what == "missing coco image":
        file = coco(root)
        (root / "train/empty.jpg").unlink()
        return open_boxes(file, file)
    voc(root)
    if what == "missing image":
        (root / "ImageSets/Main/test.txt").write_text("b\nnowhere\n")
    elif what == "missing annotation":
        (root / "Annotations/b.xml").unlink()
    elif what == "unknown class":
        (root / "Annotations/b.xml").write_text(xml(40, 30, [("cat", 1, 1, 5, 5)]))
    elif what == "empty split":
        (root / "ImageSets/Main/train.txt").write_text("\n")
    elif what == "no boxes":
        (root / "Annotations/a.xml").write_text(xml(40, 30, [("dog", 5, 5, 1, 1)]))
        (root / "Annotations/b.xml").write_text(xml(40, 30, []))
    elif what == "one split":
        (root / "ImageSets/Main/test.txt").unlink()
    return open_boxes(root)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("nothing", "is no set with boxes: give a folder with JPEGImages"),
        ("no json", "a.json is no JSON"),
        ("other json", "a.json is no COCO file: it needs the lists images, annotations"),
        ("missing coco image", "instances_train.json names 1 images that .* such as empty.jpg"),
        ("missing image", "test.txt names 1 images that .*JPEGImages lacks, such as nowhere"),
        ("missing annotation", "test.txt names 1 images that .*Annotations lacks, such as b"),
        ("unknown class", "b.xml has a box of class 'cat', which the training split lacks"),
        ("empty split", "train.txt is empty"),
        ("no boxes", "has no box to train on; it lists 1 images"),
        ("one split", "has no split test or val, but train"),
    ],
)
def test_one_sentence_says_what_is_wrong_and_where(
    tmp_path: Path, what: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        _wrong(tmp_path, what)


def test_scoring_on_what_was_trained_on_is_refused(tmp_path: Path) -> None:
    voc(tmp_path)
    with pytest.raises(UserError, match="would be scored on what it is trained on"):
        open_boxes(tmp_path, split="train:train")


def test_blood_cells(data_dir: Path) -> None:
    """The counts that the set's authors and its description give."""
    found = open_boxes(data_dir / "bccd")
    sources = (found.train, found.test)
    assert [len(source) for source in sources] == [292, 72]
    classes = np.concatenate([boxes.classes for source in sources for boxes in source.boxes])
    assert found.train.names == ["Platelets", "RBC", "WBC"]
    assert np.bincount(classes).tolist() == [361, 4153, 372]
    assert not found.log.skipped and not found.log.clipped
