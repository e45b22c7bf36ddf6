"""Images in files: folders of them, flat, nested or by class, and text files of paths."""

import posixpath
import re
from collections.abc import Callable
from typing import Any

from byol.data import remote
from byol.data.labels import SPLITS, as_labels
from byol.data.listing import files_below, visible
from byol.data.shards import IMAGE_SUFFIXES, ParquetShards, TarShards, tar_shards
from byol.errors import UserError

_SPLIT_IN_NAME = re.compile(r"(?:^|[-_.])(train|validation|valid|val|test)(?=[-_.\d]|$)")
_SPLIT_PREFIX = re.compile(r"(train|validation|valid|val|test)[-_.]")


class FileSource:
    """Image files, one path or URL each."""

    def __init__(self, paths: list[str], labels: list[Any] | None, name: str) -> None:
        self.name, self._paths = name, paths
        self.labels, self.classes = as_labels(labels)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, i: int) -> tuple[bytes, int | None]:
        encoded = remote.read(self._paths[i])
        return encoded, None if self.labels is None else int(self.labels[i])

    def locate(self, i: int) -> str:
        return self._paths[i]

    @property
    def files(self) -> list[str]:
        """All of them."""
        return self._paths


AnyFiles = FileSource | TarShards | ParquetShards


def folder_parts(folder: str) -> dict[str, Callable[[], AnyFiles]]:
    """Splits by sub-folders, else by the names of shards or the prefixes of all images' names, else
    the whole folder (or URL of one)."""
    files = _files(folder)
    below = sorted({file.partition("/")[0] for file in files if "/" in file})
    splits = [name for name in below if name.lower() in SPLITS]
    if splits and (len(splits) > 1 or len(splits) == len(below)):

        def whole(name: str) -> Callable[[], AnyFiles]:
            own = [file[len(name) + 1 :] for file in files if file.startswith(f"{name}/")]
            return lambda: _open_files(f"{folder}/{name}", own)

        loose = _ending([file for file in files if "/" not in file], IMAGE_SUFFIXES)
        if not loose:  # images beside the splits mean that the sub-folders are something else
            return {SPLITS.get(name.lower(), name): whole(name) for name in below}
    by_split = _by_name(files)
    if set(by_split) - {""}:
        by_split.pop("", None)

        def some(name: str, own: list[str]) -> Callable[[], AnyFiles]:
            return lambda: _open_files(folder, own, f"{folder}, {name}")

        return {name: some(name, own) for name, own in by_split.items()}
    return {"": lambda: _open_files(folder, files)}


def _by_name(files: list[str]) -> dict[str, list[str]]:
    """The shards, or images, of each split that names tell; "" for those whose names tell none.

    Images count only where all begin with a split's name, and with more than one: a train may be
    what a picture shows.
    """
    shards, found = _shards(files), dict[str, list[str]]()
    rule = _SPLIT_IN_NAME.search if shards else _SPLIT_PREFIX.match
    for file in shards or _images(files):
        match = rule(posixpath.splitext(posixpath.basename(file))[0].lower())
        found.setdefault(SPLITS[match[1]] if match else "", []).append(file)
    return found if shards or (len(found) > 1 and "" not in found) else {}


def _files(folder: str) -> list[str]:
    """All visible files below a folder, in an order that is the same on every machine."""
    if remote.is_url(folder):
        return sorted(filter(visible, remote.listing(folder)), key=lambda file: file.split("/"))
    return files_below(folder)


def _ending(files: list[str], suffixes: str | tuple[str, ...]) -> list[str]:
    return [file for file in files if file.lower().endswith(suffixes)]


def _shards(files: list[str]) -> list[str]:
    """The shards among the files: of one kind, and only where they outnumber image files."""
    shards = max(_ending(files, ".parquet"), _ending(files, ".tar"), key=len)
    return shards if shards and len(shards) >= len(_images(files)) else []


def _images(files: list[str]) -> list[str]:
    """Image files, or .npy files (one image each) where there are none."""
    return _ending(files, IMAGE_SUFFIXES) or _ending(files, ".npy")


def _open_shards(folder: str, shards: list[str], name: str) -> AnyFiles:
    opened = tar_shards if shards[0].lower().endswith(".tar") else ParquetShards
    return opened([f"{folder}/{shard}" for shard in shards], name)


def _open_files(folder: str, files: list[str], name: str | None = None) -> AnyFiles:
    """Shards or images of one folder, or of a part of it that has a name of its own.

    Its immediate sub-folders are classes where at least two of them hold images and no images lie
    beside them.
    """
    shards = _shards(files)
    if shards:
        return _open_shards(folder, shards, name or folder)
    images = _images(files)
    if not images:
        raise UserError(
            f"{folder} holds no images; files that end in {', '.join(IMAGE_SUFFIXES)} or .npy, or "
            ".tar and .parquet shards, are looked for in it and its sub-folders"
        )
    tops = [file.partition("/")[0] for file in images]
    labelled = len(set(tops)) > 1 and all("/" in file for file in images)
    labels = tops if labelled else None
    return FileSource([f"{folder}/{file}" for file in images], labels, name or folder)


def path_list(path: str) -> FileSource:
    """A text file: one path a line, relative to the file, and maybe a tab and a label."""
    try:
        text = remote.read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file of image paths in UTF-8") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path} names no images; one path a line is expected")
    entries = [line.split("\t", 1) for line in lines]
    paths = [remote.beside(path, entry[0].strip()) for entry in entries]
    if not remote.is_file(paths[0]):  # the others are checked when they are read
        raise UserError(
            f"{path} names {entries[0][0]!r}, and {paths[0]} is not a file; paths are relative to "
            "the text file, with a tab before the label"
        )
    labels = [entry[1].strip() if len(entry) > 1 else None for entry in entries]
    return FileSource(paths, labels, path)
