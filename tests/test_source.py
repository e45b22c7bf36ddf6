"""Splits, classes, labels and errors: what a path is taken for."""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from byol.data import listing
from byol.data.labels import align, as_labels
from byol.data.source import Subset, open_source, open_splits, write_index
from byol.errors import UserError
from tests.contracts.test_sources import LABELS, _pictures, _png, _tar


def _image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def _shard(path: Path, n: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    with tarfile.open(path, "w") as tar:
        for i in range(n):
            member = tarfile.TarInfo(f"{i}.png")
            member.size = len(file.getvalue())
            tar.addfile(member, io.BytesIO(file.getvalue()))
    return path


def test_three_images_in_a_flat_folder(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.webp"):
        _image(tmp_path / name)
    source = open_source(tmp_path)
    assert [Path(source.locate(i)).name for i in range(len(source))] == ["a.png", "b.JPG", "c.webp"]
    assert source.labels is None and source.classes is None and source.read(0)[1] is None


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        (["cat/1.png", "dog/1.png"], ["cat", "dog"]),
        (["cat/1.png", "dog/x/y/1.png"], ["cat", "dog"]),
        (["cat/1.png", "dog/1.png", "1.png"], None),  # images beside them: just folders
        (["camera/1.png", "camera/2.png"], None),  # a single folder is no class
    ],
)
def test_which_sub_folders_are_classes(
    tmp_path: Path, files: list[str], classes: list[str] | None
) -> None:
    for file in files:
        _image(tmp_path / file)
    (tmp_path / "empty").mkdir()
    source = open_source(tmp_path)
    assert source.classes == classes and len(source) == len(files)


def test_split_folders(tmp_path: Path) -> None:
    for file in ("train/cat/1.png", "train/dog/1.png", "Validation/dog/1.png", "test/emu/1.png"):
        _image(tmp_path / file)
    _image(tmp_path / "Validation/cat/2.png")
    _image(tmp_path / "test/cat/1.png")
    (tmp_path / "readme.csv").write_text("")
    assert len(open_source(tmp_path)) == 2
    splits = open_splits(tmp_path)
    assert splits.test is not None and splits.test.labels is not None
    assert splits.test.classes == splits.train.classes == ["cat", "dog", "emu"]
    assert splits.test.labels.tolist() == [0, 2] and splits.test.read(1)[1] == 2
    assert "2 images" in splits.choice and str(tmp_path / "test") in splits.choice
    other = open_splits(tmp_path, split="train:val").test
    assert other is not None and other.name == str(tmp_path / "Validation")
    assert open_splits(tmp_path, split="val").train.name == str(tmp_path / "Validation")
    with pytest.raises(UserError, match="has the splits test, train, val; 'extra'"):
        open_source(tmp_path, "extra")


def test_a_class_called_train_is_no_split(tmp_path: Path) -> None:
    for file in ("car/1.png", "train/1.png", "boat/1.png"):
        _image(tmp_path / file)
    assert open_source(tmp_path).classes == ["boat", "car", "train"]


def test_splits_by_the_prefixes_of_images(tmp_path: Path) -> None:
    for folder, names in (
        ("flat", ("train_1", "train-2", "test_1")),
        ("classes", ("cat/train_1", "dog/train_1", "cat/Val_2", "dog/val_3")),
        ("journey", ("train_1", "test_1", "station")),  # what they show
        ("trains", ("train_1", "train_2")),
    ):
        for name in names:
            _image(tmp_path / folder / f"{name}.png")
    flat, classes = open_splits(tmp_path / "flat"), open_splits(tmp_path / "classes")
    assert len(flat.train) == 2 and flat.test is not None and len(flat.test) == 1
    assert f"{tmp_path / 'flat'}, test" in flat.choice
    assert classes.train.classes == ["cat", "dog"] and classes.test is not None
    assert classes.test.labels is not None and classes.test.labels.tolist() == [0, 1]
    assert [len(open_source(tmp_path / name)) for name in ("journey", "trains")] == [3, 2]


def test_splits_by_the_names_of_shards(tmp_path: Path) -> None:
    for name, n in (("set-train-000", 2), ("set-train-001", 3), ("set-validation-000", 4)):
        _shard(tmp_path / "data" / f"{name}.tar", n)
    splits = open_splits(tmp_path)
    assert splits.test is not None and (len(splits.train), len(splits.test)) == (5, 4)
    (tmp_path / "preview.png").write_bytes(b"")
    assert len(open_source(tmp_path)) == 5  # one picture beside shards does not count


def test_real_splits(data_dir: Path) -> None:
    photos = open_splits(data_dir / "photos")
    assert photos.test is not None and photos.test.classes == photos.train.classes
    assert (len(photos.train), len(photos.test)) == (300, 100)
    cifar = open_splits(data_dir / "cifar10")
    assert cifar.test is not None and (len(cifar.train), len(cifar.test)) == (50_000, 10_000)
    other = open_splits(data_dir / "photos", eval_data=data_dir / "cifar10").test
    assert other is not None and len(other) == 10_000


def test_splits_without_a_test() -> None:
    splits = open_splits("digits")
    assert splits.test is None and len(splits.train) == 1797
    drawn = open_splits(None)
    assert drawn.test is not None and (len(drawn.train), len(drawn.test)) == (4000, 2000)


def test_splits_in_python_and_in_npz(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 3, 3), np.uint8), np.array([0, 1, 0, 1])
    mapping = open_splits({"train": (images, labels), "validation": images[:2]})
    assert mapping.test is not None and (len(mapping.train), len(mapping.test)) == (4, 2)
    for naming in ("x_{}", "y_{}"), ("{}_images", "{}_labels"):
        arrays = {
            naming[0].format("train"): images,
            naming[1].format("train"): labels,
            naming[0].format("test"): images[:1],
            naming[1].format("test"): labels[:1],
        }
        np.savez(tmp_path / "set.npz", allow_pickle=False, **arrays)
        splits = open_splits(tmp_path / "set.npz")
        assert splits.test is not None and (len(splits.train), len(splits.test)) == (4, 1)
        assert splits.train.labels is not None and splits.train.labels.tolist() == [0, 1, 0, 1]


def test_several_folders(tmp_path: Path) -> None:
    for file in ("a/cat/1.png", "a/dog/1.png", "b/dog/1.png", "b/emu/1.png", "c/1.png"):
        _image(tmp_path / file)
    both = open_source([tmp_path / "a", tmp_path / "b"])
    assert both.classes == ["cat", "dog", "emu"] and both.labels is not None
    assert both.labels.tolist() == [0, 1, 1, 2]
    assert open_source([tmp_path / "a", str(tmp_path / "c")]).labels is None


def test_folder_of_arrays(tmp_path: Path) -> None:
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.zeros((4, 5, 13), np.uint16))
    assert len(open_source(tmp_path)) == 3


def test_tar_index_is_kept_and_renewed(tmp_path: Path) -> None:
    shard = _shard(tmp_path / "a.tar", 2)
    assert len(open_source(shard)) == 2
    index = tmp_path / "a.tar.index.json"
    kept = json.loads(index.read_text())
    assert len(kept["members"]) == 2
    kept["members"] = ["x.png", "y.png"]
    index.write_text(json.dumps(kept))
    assert open_source(shard).locate(0) == f"{shard}:x.png"  # read from the index
    index.write_text("{damaged")
    assert open_source(shard).locate(0) == f"{shard}:0.png"
    _shard(shard, 5)
    assert len(open_source(shard)) == 5


def test_an_index_file_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same set from a file beside its shards, wherever both are moved; the path travels."""
    (tmp_path / "a").mkdir()
    shards = open_source(_tar(tmp_path / "a"))
    said = write_index(str(tmp_path / "a" / "shards"), str(tmp_path / "a" / "all.index"))
    assert said.endswith("all.index: 6 images in 2 shards")
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.setattr("byol.data.shards._tar_index", lambda path: pytest.fail("indexed again"))
    source = open_source(tmp_path / "b" / "all.index")
    assert source.labels is not None and shards.labels is not None
    assert source.labels.tolist() == shards.labels.tolist() and source.labels.dtype == np.int64
    assert source.classes == shards.classes and len(source) == 6
    pickled = pickle.dumps(source)
    assert len(pickled) < 500 and b"0001.png" not in pickled
    for reader in (source, pickle.loads(pickled)):
        for i in (5, 0, 3):
            assert reader.locate(i) == shards.locate(i).replace("/a/", "/b/")
            assert reader.read(i) == (_png(_pictures()[i]), LABELS[i])
    source.labels = source.labels[::-1]  # as another numbering of classes would
    assert pickle.loads(pickle.dumps(source)).labels.tolist() == source.labels.tolist()


def test_an_index_file_that_does_not_fit(tmp_path: Path) -> None:
    shards = _tar(tmp_path)
    for data, out, says in (
        (shards, "index.json", "ends in .index"),
        (_image(tmp_path / "pictures" / "1.png").parent, "a.index", "no set of tar shards"),
        (shards, "nowhere/a.index", "cannot be written"),
    ):
        with pytest.raises(UserError, match=says):
            write_index(str(data), str(tmp_path / out))
    whole = tmp_path / "whole.index"
    write_index(str(shards), str(whole))
    for content in (b"", b"x" * 100, whole.read_bytes()[:-1]):
        (tmp_path / "bad.index").write_bytes(content)
        with pytest.raises(UserError, match="no index of tar shards, or damaged"):
            open_source(tmp_path / "bad.index")
    (shards / "000000.tar").unlink()
    with pytest.raises(UserError, match="names shards that cannot be read"):
        open_source(whole)


def test_subset_keeps_labels_and_places() -> None:
    source = open_source((np.arange(12).reshape(4, 1, 3), np.array([5, 6, 7, 8])))
    part = Subset(source, np.array([3, 1]))
    assert part.labels is not None and part.labels.tolist() == [8, 6]
    assert part.read(0)[1] == 8 and part.locate(1) == source.locate(1)


@pytest.mark.parametrize(
    ("values", "labels", "classes"),
    [
        ([3, 0, None], [3, 0, -1], ["0", "1", "2", "3"]),
        (["b", "a", ""], [1, 0, -1], ["a", "b"]),
        (["10", "2"], [10, 2], [str(i) for i in range(11)]),
        ([10**12, 5], [1, 0], ["5", "1000000000000"]),
        (np.array([[1], [0]]), [1, 0], ["0", "1"]),
        ([None, None], None, None),
        (np.zeros((2, 5)), None, None),
        ([0.5, 1.5], None, None),
    ],
)
def test_labels_of_any_form(
    values: Any, labels: list[int] | None, classes: list[str] | None
) -> None:
    found, names = as_labels(values)
    assert (None if found is None else found.tolist()) == labels and names == classes


def test_align_by_name() -> None:
    labels, names = align(np.array([0, 1, 2, -1]), ["a", "c", "d"], ["d", "b", "a"])
    assert labels.tolist() == [2, 3, 0, -1] and names == ["d", "b", "a", "c"]


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _objects(path: Path) -> Path:
    np.save(path, np.array([{}, 1], dtype=object))
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p / "nowhere", "nowhere does not exist; data is a folder of images"),
        (lambda p: p, r"holds no images; files that end in \.jpg, .*\.png"),
        (lambda p: _write(p / "a.docx", b"x"), "of no known format; data is"),
        (lambda p: _write(p / "a.tar", b"x" * 2000), "cannot be read as an uncompressed tar"),
        (lambda p: _write(p / "a.parquet", b"x" * 50), "cannot be read as Parquet"),
        (lambda p: _write(p / "a.npy", b"x"), "cannot be read as NumPy"),
        (lambda p: _write(p / "a.npz", b"x"), "cannot be read as NumPy"),
        (lambda p: _write(p / "a.txt", b""), "names no images"),
        (lambda p: _write(p / "a.txt", b"gone.png\n"), "names 'gone.png', and .* is not a file"),
        (lambda p: _write(p / "a.txt", b"\xff\xfe\x00"), "UTF-8"),
        (lambda p: _shard(p / "a.tar", 0), "holds no images"),
        (lambda p: _objects(p / "a.npy"), "of Python objects; save numbers with numpy.save"),
        (lambda p: np.zeros((5, 3, 99, 99)), "channel-first"),
        (lambda p: np.zeros((5, 1, 8, 8)), "channel-first"),
        (lambda p: np.zeros((5, 5)), r"images are expected as numbers of shape \(N, H, W\)"),
        (lambda p: np.zeros((0, 5, 5)), "holds no images"),
        (lambda p: (np.zeros((5, 5, 5)), np.zeros(4)), "5 images but 4 labels"),
        (lambda p: 7, "data of type int was given"),
        (lambda p: [], "holds no images"),
    ],
)
def test_wrong_data_is_one_sentence(make: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence) as raised:
        open_source(make(tmp_path))
    assert "\n" not in str(raised.value)


def test_parquet_without_images(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="has the columns a, b; none holds encoded images"):
        open_source(tmp_path / "t.parquet")


def test_the_list_of_a_large_folder_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "_MANY", 4)
    monkeypatch.setattr(listing, "_SETTLED", -1)  # no waiting for the clock
    root = tmp_path / "set"
    names = ["b/2.png", "b/10.png", "a/1.png", "a/c/.hidden.png", "a/c/3.png", "z.png", ".d/4.png"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "b" / "up").symlink_to(root)
    found = ["a/1.png", "a/c/3.png", "b/10.png", "b/2.png", "z.png"]
    assert listing.files_below(str(root)) == found
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", None)  # nothing is read again
        assert listing.files_below(str(root)) == found
    (root / "a" / "c" / "3.png").rename(root / "a" / "c" / "4.png")
    assert listing.files_below(str(root)) == [name.replace("3.png", "4.png") for name in found]
    (kept,) = (tmp_path / "cache" / "byol" / "listings").iterdir()
    kept.write_text("{damaged")
    assert len(listing.files_below(str(root))) == 5


def test_a_folder_that_changes_while_it_is_listed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time of modification may not tell what came before from what came after."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "_MANY", 0)
    root = tmp_path / "set"
    root.mkdir()
    stat = root.stat()
    assert listing.files_below(str(root)) == []
    (root / "1.png").touch()
    os.utime(root, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert listing.files_below(str(root)) == ["1.png"]
