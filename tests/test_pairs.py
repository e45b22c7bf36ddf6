"""Pairs of images and maps: every layout that is read, and what is wrong with the others."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from byol.data.decode import decode
from byol.data.pairs import Pairs, choose, hold_out, open_pairs
from byol.data.pixels import DecodeError
from byol.errors import UserError
from tests.scenes import depth_scene, mask_scene, save_mask, write_depth, write_voc


def test_the_layout_of_voc(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", 4, 2)
    (root / "ImageSets" / "Segmentation" / "test.txt").write_text("2008_000001\n")  # no masks
    parts = open_pairs(root, "classes")
    assert {key: len(pairs) for key, pairs in parts.items()} == {"train": 4, "val": 2}
    assert parts["val"].classes == ("ground", "wall", "disc")
    image, mask = pickle.loads(pickle.dumps(parts["val"])).read(1)
    pixels, truth = mask_scene(5)
    assert (mask == truth).all() and mask.dtype == np.uint8 and 255 in mask
    assert abs(decode(image, 3).astype(int) - pixels).mean() < 6  # JPEG
    train, test, said = choose(parts, None, None, 0)
    assert (len(train), len(test)) == (4, 2) and "4 pairs" in said and "val.txt" in said
    assert parts["train"].locate(0).endswith("JPEGImages/2007_000000.jpg")


def test_augmented_masks_come_first_and_lists_may_name_both_files(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", 3, 2)
    (root / "SegmentationClass").rename(root / "SegmentationClassAug")
    line = "/JPEGImages/2007_000001.jpg /SegmentationClassAug/2007_000001.png\n"
    (root / "ImageSets" / "Segmentation" / "train_aug.txt").write_text(line + "\n")
    train, _, _ = choose(open_pairs(root, "classes"), None, None, 0)
    assert len(train) == 1 and (train.read(0)[1] == mask_scene(1)[1]).all()


def _write_pairs(images: Path, masks: Path, n: int) -> None:
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for i in range(n):
        pixels, mask = mask_scene(i, 32)
        Image.fromarray(pixels).save(images / f"{i}.png")
        Image.fromarray(mask).save(masks / f"{i}.png")


def test_plain_folders(tmp_path: Path) -> None:
    """Unsplit; split inside each; split around both."""
    _write_pairs(tmp_path / "a" / "images", tmp_path / "a" / "masks", 10)
    parts = open_pairs(tmp_path / "a", "classes")
    train, test, said = choose(parts, None, None, 3)
    assert (len(train), len(test)) == (8, 2) and "other fifth" in said
    assert not {train.locate(i) for i in range(8)} & {test.locate(i) for i in range(2)}
    for split, n in (("train", 3), ("valid", 2)):
        _write_pairs(tmp_path / "b" / "images" / split, tmp_path / "b" / "labels" / split, n)
        _write_pairs(tmp_path / "c" / split / "images", tmp_path / "c" / split / "masks", n)
    for name in "bc":
        parts = open_pairs(tmp_path / name, "classes")
        assert {key: len(pairs) for key, pairs in parts.items()} == {"train": 3, "val": 2}
        assert (parts["val"].read(1)[1] == mask_scene(1, 32)[1]).all()


def test_depth_is_that_of_the_scene(tmp_path: Path) -> None:
    root = write_depth(tmp_path / "depth", 2, 1)
    pairs = open_pairs(root, "depth")["test"]
    _, metres = pairs.read(0)
    truth = depth_scene(2)[1]
    assert metres.dtype == np.float32 and (metres[:2] == 0).all()
    np.testing.assert_allclose(metres[2:], truth[2:], atol=0.0006)
    assert truth.min() < 2.5 and truth.max() > 3  # the ball and the wall
    tenths = open_pairs(root, "depth", depth_scale=100)["test"].read(0)[1]
    np.testing.assert_allclose(tenths, 10 * metres, rtol=1e-6)


def _write_mat(path: Path, frames: int) -> tuple[np.ndarray, np.ndarray]:
    scenes = [depth_scene(i, 64, 48) for i in range(frames)]
    images, depths = (np.stack(each) for each in zip(*scenes, strict=True))
    with h5py.File(path, "w", userblock_size=512) as file:  # MATLAB stores its axes in reverse
        file["images"] = images.transpose(0, 3, 2, 1)
        file["depths"] = depths.astype(np.float32).transpose(0, 2, 1)
    return images, depths


def test_nyu(tmp_path: Path) -> None:
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    images, depths = _write_mat(path, 9)
    splits = {"trainNdxs": np.array([[9], [2]]), "testNdxs": np.array([[1], [5], [6]])}
    savemat(tmp_path / "splits.mat", splits)
    for data in (path, tmp_path):
        parts = open_pairs(data, "depth")
        assert {key: len(pairs) for key, pairs in parts.items()} == {"train": 2, "test": 3}
        assert "splits.mat" in parts["test"].name
    image, depth = parts["train"].read(0)
    image_again, _ = pickle.loads(pickle.dumps(parts["train"])).read(0)
    assert isinstance(image, np.ndarray) and (image == images[8]).all()
    assert (image == image_again).all()
    np.testing.assert_allclose(depth, depths[8], rtol=1e-6)
    assert parts["test"].locate(1).endswith("frame 4")
    (tmp_path / "splits.mat").unlink()
    parts = open_pairs(path, "depth")
    assert {key: len(pairs) for key, pairs in parts.items()} == {"train": 5, "test": 4}
    assert "not the official split" in choose(parts, None, None, 0)[2]


def test_another_mat_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.mat"
    savemat(path, {"images": np.zeros((2, 2))})
    with pytest.raises(UserError, match="old.mat is an older MATLAB file.*-v7.3"):
        open_pairs(path, "depth")
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["images"] = np.zeros((4, 3, 8, 6), np.uint8)
    with pytest.raises(UserError, match=r"other.mat holds images .*and depths of shape \(\)"):
        open_pairs(tmp_path / "other.mat", "depth")
    good = tmp_path / "good.mat"
    _write_mat(good, 3)
    for content, message in (
        ({"trainNdxs": [[1]], "testNdxs": [[4]]}, "testNdxs must be from 1 to 3"),
        ({"trainNdxs": [[1]]}, "splits.mat cannot be read"),
    ):
        savemat(tmp_path / "splits.mat", content)
        with pytest.raises(UserError, match=message):
            open_pairs(good, "depth")


def _reason(pairs: Pairs, i: int) -> str:
    with pytest.raises(DecodeError) as caught:
        pairs.read(i)
    return str(caught.value)


def test_a_bad_pair_says_which_file(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", 7, 1)
    masks = root / "SegmentationClass"
    (masks / "2007_000000.png").unlink()
    (root / "JPEGImages" / "2007_000001.jpg").unlink()
    Image.new("RGB", (64, 64)).save(masks / "2007_000002.png")
    Image.fromarray(np.full((64, 64), 4, np.uint8)).save(masks / "2007_000003.png")
    (masks / "2007_000004.png").write_bytes(b"nonsense")
    Image.fromarray(np.full((64, 64), 700, np.uint16)).save(masks / "2007_000005.png")
    pairs = open_pairs(root, "classes")["train"]
    assert "2007_000000.png does not exist" in _reason(pairs, 0)
    assert "2007_000001.jpg does not exist" in _reason(pairs, 1)
    assert "2007_000002.png is a mask of mode RGB" in _reason(pairs, 2)
    assert "holds class 4 where there are 3 classes" in _reason(pairs, 3)
    assert "2007_000004.png cannot be decoded" in _reason(pairs, 4)
    assert "holds class 700" in _reason(pairs, 5)
    assert (pairs.read(6)[1] == mask_scene(6)[1]).all()
    depth = write_depth(tmp_path / "depth", 1, 1)
    Image.new("RGB", (80, 60)).save(depth / "depth" / "scene.0.png")
    assert "a depth image has one" in _reason(open_pairs(depth, "depth")["train"], 0)


def test_no_data_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        open_pairs(tmp_path / "nowhere", "classes")
    with pytest.raises(UserError, match="no two folders.*JPEGImages"):
        open_pairs(tmp_path, "classes")
    (tmp_path / "file.zip").write_bytes(b"")
    with pytest.raises(UserError, match="is no folder"):
        open_pairs(tmp_path / "file.zip", "classes")
    _write_pairs(tmp_path / "images", tmp_path / "masks", 0)
    with pytest.raises(UserError, match="no image"):
        open_pairs(tmp_path, "classes")
    parts = open_pairs(write_voc(tmp_path / "voc", 2, 1), "classes")
    with pytest.raises(UserError, match="'test' was asked for"):
        choose(parts, None, "test", 0)
    with pytest.raises(UserError, match="name one"):
        choose({"val": parts["val"]}, None, None, 0)
    with pytest.raises(UserError, match="1 pair"):
        hold_out(parts["val"], 0)


def test_real_pairs(data_dir: Path) -> None:
    camvid = open_pairs(data_dir / "camvid", "classes")
    assert {key: len(pairs) for key, pairs in camvid.items()} == {
        "train": 245, "val": 81, "test": 117
    }  # fmt: skip
    assert camvid["train"].classes and camvid["train"].classes[3] == "road"
    mask = camvid["train"].read(0)[1]
    assert mask.shape == (180, 240) and set(np.unique(mask)) <= {*range(11), 255}
    depth = open_pairs(data_dir / "depth", "depth")
    assert {key: len(pairs) for key, pairs in depth.items()} == {"train": 25, "val": 10}
    metres = depth["val"].read(0)[1]
    assert metres.shape == (240, 320) and 0.4 < np.median(metres[metres > 0]) < 6


def test_a_palette_does_not_change_the_classes(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save_mask(tmp_path / "m.png", mask)
    assert (np.asarray(Image.open(tmp_path / "m.png")) == mask).all()  # what VOC's own tools read
