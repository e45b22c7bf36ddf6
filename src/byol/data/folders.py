"""Images in files: folders of them, flat, nested or by class, and text files of paths."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from byol.data.labels import SPLITS, as_labels
from byol.data.shards import IMAGE_SUFFIXES, ParquetShards, TarShards
from byol.errors import UserError

_SPLIT_IN_NAME = re.compile(r"(?:^|[-_.])(train|validation|valid|val|test)(?=[-_.\d]|$)")


class FileSource:
    """Image files, one path each."""

    def __init__(self, paths: list[str], labels: list[Any] | None, name: str) -> None:
        self.name, self._paths = name, paths
        self.labels, self.classes = as_labels(labels)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, i: int) -> tuple[bytes, int | None]:
        with open(self._paths[i], "rb") as file:
            encoded = file.read()
        return encoded, None if self.labels is None else int(self.labels[i])

    def locate(self, i: int) -> str:
        return self._paths[i]


AnyFiles = FileSource | TarShards | ParquetShards


def folder_parts(folder: Path) -> dict[str, Callable[[], AnyFiles]]:
    """Splits by sub-folders, else by the names of shards, else the whole folder."""
    below = [entry for entry in sorted(folder.iterdir()) if _visible(entry) and entry.is_dir()]
    splits = [entry for entry in below if entry.name.lower() in SPLITS]
    if splits and (len(splits) > 1 or len(splits) == len(below)):

        def whole(entry: Path) -> Callable[[], AnyFiles]:
            return lambda: _open_files(entry, _walk(entry))

        named = {SPLITS.get(entry.name.lower(), entry.name): whole(entry) for entry in below}
        loose = [e for e in sorted(folder.iterdir()) if e.suffix.lower() in IMAGE_SUFFIXES]
        if not loose:  # images beside the splits mean that the sub-folders are something else
            return named
    files = _walk(folder)
    shards = _shards(files)
    by_split: dict[str, list[Path]] = {}
    for shard in shards:
        match = _SPLIT_IN_NAME.search(shard.stem)
        by_split.setdefault(SPLITS[match[1]] if match else "", []).append(shard)
    if set(by_split) - {""}:
        by_split.pop("", None)

        def some(name: str, paths: list[Path]) -> Callable[[], AnyFiles]:
            return lambda: _open_shards(paths, f"{folder}, {name}")

        return {name: some(name, paths) for name, paths in by_split.items()}
    return {"": lambda: _open_files(folder, files)}


def _visible(path: Path) -> bool:
    return not path.name.startswith(".") and path.name != "__MACOSX"


def _walk(folder: Path) -> list[Path]:
    """All visible files below a folder, in an order that is the same on every machine."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error

    files, seen = [], set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if _visible(Path(name))]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda path: path.parts)


def _shards(files: list[Path]) -> list[Path]:
    """The shards among the files: of one kind, and only where they outnumber image files."""
    parquet = [path for path in files if path.suffix.lower() == ".parquet"]
    tar = [path for path in files if path.suffix.lower() == ".tar"]
    shards = max(parquet, tar, key=len)
    return shards if len(shards) >= max(1, len(_images(files))) else []


def _images(files: list[Path]) -> list[Path]:
    """Image files, or .npy files (one image each) where there are none."""
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    return images or [path for path in files if path.suffix.lower() == ".npy"]


def _open_shards(shards: list[Path], name: str) -> AnyFiles:
    if shards[0].suffix.lower() == ".tar":
        return TarShards(shards, name)
    return ParquetShards(shards, name)


def _open_files(folder: Path, files: list[Path]) -> AnyFiles:
    """Shards or images of one folder.

    Its immediate sub-folders are classes where at least two of them hold images and no images lie
    beside them.
    """
    shards = _shards(files)
    if shards:
        return _open_shards(shards, str(folder))
    images = _images(files)
    if not images:
        raise UserError(
            f"{folder} holds no images; files that end in {', '.join(IMAGE_SUFFIXES)} or .npy, or "
            ".tar and .parquet shards, are looked for in it and its sub-folders"
        )
    first = [path.relative_to(folder).parts for path in images]
    classes = {parts[0] for parts in first}
    labelled = len(classes) > 1 and all(len(parts) > 1 for parts in first)
    labels = [parts[0] for parts in first] if labelled else None
    return FileSource([str(path) for path in images], labels, str(folder))


def path_list(path: Path) -> FileSource:
    """A text file: one path a line, relative to the file, and maybe a tab and a label."""
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file of image paths in UTF-8") from error
    if not lines:
        raise UserError(f"{path} names no images; one path a line is expected")
    entries = [line.split("\t", 1) for line in lines]
    paths = [str(path.parent / os.path.expanduser(entry[0].strip())) for entry in entries]
    if not os.path.isfile(paths[0]):  # the others are checked when they are read
        raise UserError(
            f"{path} names {entries[0][0]!r}, and {paths[0]} is not a file; paths are relative to "
            "the text file, with a tab before the label"
        )
    labels = [entry[1].strip() if len(entry) > 1 else None for entry in entries]
    return FileSource(paths, labels, str(path))
