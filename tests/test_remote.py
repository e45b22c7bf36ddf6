"""Data behind a URL: what the disk gives, and what is asked of the store."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byol.data.decode import decode
from byol.data.files import images
from byol.data.remote import beside
from byol.data.source import open_source, open_splits
from byol.errors import UserError
from tests.contracts.test_sources import FORMATS, N, _parquet, _tar

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Any]:
    """Copies a local file or folder to memory://bucket and gives its URL."""
    store = fsspec.filesystem("memory")

    def upload(path: Path) -> str:
        store.put(str(tmp_path), "/bucket", recursive=True)
        return f"memory://bucket/{path.relative_to(tmp_path).as_posix()}"

    yield upload
    if store.exists("/bucket"):
        store.rm("/bucket", recursive=True)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("store", ["memory", "file"])
@pytest.mark.parametrize("kind", ["folder", "list", "tar", "parquet"])
def test_a_url_gives_what_the_disk_gives(
    kind: str, store: str, slash: str, tmp_path: Path, bucket: Any
) -> None:
    path = FORMATS[kind](tmp_path)
    url = bucket(path) if store == "memory" else f"file://{path}"
    here, there = open_source(path), open_source(url + (slash if path.is_dir() else ""))
    there = pickle.loads(pickle.dumps(there))
    assert there.labels is not None and here.labels is not None
    assert there.labels.tolist() == here.labels.tolist() and there.classes == here.classes
    for i in range(N):
        assert np.array_equal(decode(there.read(i)[0]), decode(here.read(i)[0]))
        assert there.locate(i) == here.locate(i).replace(str(path.parent), url.rpartition("/")[0])


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_remote_arrays(suffix: str, tmp_path: Path, bucket: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (N, 4, 5, 3), np.uint8)
    path = tmp_path / f"images.{suffix}"
    np.save(path, pixels) if suffix == "npy" else np.savez(path, images=pixels)
    source = pickle.loads(pickle.dumps(open_source(bucket(path))))
    assert np.array_equal(source.read(4)[0], pixels[4])


def test_remote_splits_and_hidden_files(tmp_path: Path, bucket: Any) -> None:
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
        FORMATS["folder"](tmp_path / "set" / split)
    splits = open_splits(bucket(tmp_path / "set"))
    assert splits.test is not None and len(splits.train) == len(splits.test) == N
    assert splits.test.name == "memory://bucket/set/test"


def test_an_index_is_built_once_and_an_image_is_one_request(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = bucket(_tar(tmp_path))
    open_source(url)
    from byol.data import shards

    monkeypatch.setattr(shards, "_scan_tar", lambda path: pytest.fail("indexed again"))
    source = open_source(url)
    asked = []
    store = type(fsspec.filesystem("memory"))
    whole = store.cat_file

    def cat_file(self: Any, path: str, start: Any = None, end: Any = None, **rest: Any) -> bytes:
        asked.append((path, start, end))
        content: bytes = whole(self, path, start=start, end=end, **rest)
        return content

    monkeypatch.setattr(store, "cat_file", cat_file)
    encoded, _ = source.read(4)
    ((path, start, end),) = asked
    assert path == "/bucket/shards/000001.tar" and end - start == len(encoded) > 0


def test_an_index_stays_in_memory_where_it_cannot_be_kept(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("read-only bucket")  # stores have exceptions of their own

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", refuse)
    assert len(open_source(bucket(_tar(tmp_path)))) == N


def test_workers_open_the_store_anew(tmp_path: Path) -> None:
    """In worker processes, after this one has used the store."""
    source = open_source(f"file://{_parquet(tmp_path)}")
    source.read(0)
    found = [images(source, 4, 3, (0, 255), 2, workers) for workers in (0, 1)]
    for (a, i, _), (b, j, _) in zip(*found, strict=True):
        assert a.equal(b) and i.equal(j)


def test_a_file_that_is_gone_is_a_bad_file(tmp_path: Path, bucket: Any) -> None:
    source = open_source(bucket(FORMATS["folder"](tmp_path)))
    fsspec.filesystem("memory").rm("/bucket/fruit/apple/deeper/0.PNG")
    bad: list[str] = []
    batches = list(images(source, 4, 3, (0, 255), 8, bad=bad, bad_share=0.5))
    assert len(batches[0][0]) == N - 1 and "apple/deeper/0.PNG" in bad[0]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("memory://nowhere/x", "^memory://nowhere/x does not exist; data is"),
        ("s3://bucket/x", r"s3:// needs a package .*s3fs.*byol\[remote\]"),
        ("teapot://x", "teapot://x cannot be read .*s3://"),
    ],
)
def test_wrong_urls_are_one_sentence(
    url: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=sentence) as raised:
        open_source(url)
    assert "\n" not in str(raised.value)


def test_without_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UserError, match=r"pip install 'byol\[remote\]'"):
        open_source("memory://bucket")


def test_a_store_that_fails_is_one_sentence(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = bucket(_tar(tmp_path))

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Unable to locate credentials")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "isdir", refuse)
    with pytest.raises(UserError, match="cannot be read: RuntimeError: Unable to locate cred"):
        open_source(url)


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("/a/b.txt", "c/d.png", "/a/c/d.png"),
        ("/a/b.txt", "/x/d.png", "/x/d.png"),
        ("s3://a/b/c.txt", "../d.png", "s3://a/d.png"),
        ("/a/b.txt", "s3://a/d.png", "s3://a/d.png"),
    ],
)
def test_names_beside_a_file(path: str, name: str, expected: str) -> None:
    assert beside(path, name) == expected
