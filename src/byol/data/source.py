"""Where images are: one protocol, opened by what the path (or the object) is, and its splits.

A split data set is a folder whose sub-folders, or whose shard files by a part of their name, are
called train, val (validation, valid) and test; a mapping or an .npz file with such keys; or an
embedded set that has both.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import numpy as np

from byol.data import embedded, remote
from byol.data.arrays import ArraySource, array_parts
from byol.data.folders import FileSource, folder_parts, path_list
from byol.data.labels import SPLITS, align
from byol.data.objects import HuggingFaceSource, MapSource
from byol.data.shards import IMAGE_SUFFIXES, ParquetShards, TarShards, indexed_shards, tar_shards
from byol.errors import UserError

EMBEDDED = ("textures", "digits")
FORMATS = (
    "a folder of images, .tar or .parquet shards (a file or a folder of them), an .index of "
    "byol index, a .txt file of "
    "image paths, .npy or .npz arrays, or the embedded sets " + " and ".join(EMBEDDED)
)


@runtime_checkable
class Source(Protocol):
    """Images at random places; cheap to pickle."""

    name: str  # for messages
    classes: list[str] | None  # names, where there are labels
    labels: np.ndarray | None  # (N,) int64, -1 where one is missing; known without reading images

    def __len__(self) -> int: ...

    def read(self, i: int) -> tuple[bytes | np.ndarray, int | None]:
        """Image i as an encoded file or as pixels (H, W, C), and its label."""
        ...

    def locate(self, i: int) -> str:
        """Where image i is, for messages."""
        ...


@dataclass(frozen=True)
class Splits:
    """What is trained on, what is queried in evaluation, and one sentence that says so."""

    train: Source
    test: Source | None
    choice: str


class Subset:
    """Some images of a source."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.name = f"{len(indices):,} images of {source.name}"
        self._source, self._indices = source, indices
        self.classes = source.classes
        self.labels = None if source.labels is None else source.labels[indices]

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, i: int) -> tuple[bytes | np.ndarray, int | None]:
        encoded, _ = self._source.read(int(self._indices[i]))
        return encoded, None if self.labels is None else int(self.labels[i])

    def locate(self, i: int) -> str:
        return self._source.locate(int(self._indices[i]))


class Joined:
    """Sources one after another; their labels are of one numbering."""

    def __init__(self, *sources: Source) -> None:
        self.name = " and ".join(source.name for source in sources)
        self._sources = sources
        self._ends = np.cumsum([len(source) for source in sources])
        self.classes = sources[0].classes
        known = [source.labels for source in sources if source.labels is not None]
        self.labels = np.concatenate(known) if len(known) == len(sources) else None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _place(self, i: int) -> tuple[Source, int]:
        which = int(np.searchsorted(self._ends, i, side="right"))
        return self._sources[which], i - int(self._ends[which - 1] if which else 0)

    def read(self, i: int) -> tuple[bytes | np.ndarray, int | None]:
        source, place = self._place(i)
        return source.read(place)

    def locate(self, i: int) -> str:
        source, place = self._place(i)
        return source.locate(place)


Data = Any  # a path, a list of folders, arrays, a data set, or None for the embedded textures
_Parts = Mapping[str, Callable[[], Source]]


def open_source(data: Data, split: str | None = None) -> Source:
    """The images of `data`; of a split set its `split`, or train where none is named.

    Paths: see FORMATS ("./digits" is a folder, "digits" the embedded set). Python: an array
    (N, H, W[, C]), a pair (images, labels), a Hugging Face or map-style data set, a mapping of
    splits, a list of folders, or a Source. UserError says what was found instead.
    """
    parts = _parts(data)
    return parts[_choose(parts, split, _name(data))]()


def write_index(data: Data, out: str, split: str | None = None) -> str:
    """`byol index`: where each image of a set of tar shards lies, as a file that is data by itself.

    Says what was written. UserError where the data is something else, or `out` no such file.
    """
    if not out.endswith(".index") or remote.is_url(out):
        raise UserError(f"{out} is no name of an index: give a local file that ends in .index")
    source = open_source(data, split)
    if not isinstance(source, TarShards):
        raise UserError(f"{source.name} is no set of tar shards, which alone have an index")
    try:
        source.index.write(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error
    return f"{out}: {len(source):,} images in {len(source.index.shards):,} shards"


def split_names(data: Data) -> set[str]:
    """train, val and test as far as `data` has them, or the one name ""."""
    return set(_parts(data))


def open_splits(data: Data, eval_data: Data = None, split: str | None = None) -> Splits:
    """Images to train on and images to query in evaluation.

    Trains on the train split, queries `eval_data` (of which its test or val split, if it has
    one), else the data's own test split, else val, else None. split="val" trains on another one;
    "train:val" names both. Labels of both are put into one numbering of class names.
    """
    parts = _parts(data)
    trained, _, queried = (split or "").partition(":")
    trained = _choose(parts, trained or None, _name(data))
    train = parts[trained]()
    test: Source | None = None
    if eval_data is not None:
        others = _parts(eval_data)
        chosen = _choose(others, queried or None, _name(eval_data), ("test", "val", "train", ""))
        test = others[chosen]()
    else:
        free = [name for name in ("test", "val") if name in parts and name != trained]
        if queried or free:
            test = parts[_choose(parts, queried or free[0], _name(data))]()
    choice = f"training on {_describe(train)}"
    if test is not None:
        choice += f", evaluating on {_describe(test)}"
        _one_numbering(train, test)
    return Splits(train, test, choice + ".")


def _describe(source: Source) -> str:
    labelled = f"of {len(source.classes)} classes" if source.classes else "without labels"
    return f"{len(source):,} images {labelled} ({source.name})"


def _one_numbering(train: Source, test: Source) -> None:
    if not train.classes or not test.classes or train.classes == test.classes:
        return
    assert test.labels is not None
    test.labels, test.classes = align(test.labels, test.classes, train.classes)
    train.classes = test.classes


def _choose(
    parts: _Parts,
    split: str | None,
    name: str,
    preferred: tuple[str, ...] = ("train", ""),
) -> str:
    """The key of `parts` that is asked for, the preferred one, or the only one."""
    found = ", ".join(sorted(parts)) or "none"
    if split is not None:
        wanted = SPLITS.get(split, split)
        if wanted in parts:
            return wanted
        held = "is not split" if "" in parts else f"has the splits {found}"
        raise UserError(f"{name} {held}; {split!r} was asked for")
    for key in preferred:
        if key in parts:
            return key
    if len(parts) == 1:
        return next(iter(parts))
    raise UserError(f"{name} has the splits {found} and no train; name one with --split")


def _name(data: Data) -> str:
    return str(data) if isinstance(data, (str, Path)) else type(data).__name__


def _parts(data: Data) -> _Parts:
    """How to open each split of `data`; the one key "" where it is not split."""
    if data is None or (isinstance(data, str) and data in EMBEDDED):
        return _embedded(data or "textures")
    if isinstance(data, (str, os.PathLike)):
        return _path_parts(_place(data))
    if isinstance(data, Mapping):
        if "images" in data:
            return {"": lambda: ArraySource(np.asarray(data["images"]), data.get("labels"))}
        return {SPLITS.get(str(key), str(key)): _opener(value) for key, value in data.items()}
    return {"": _opener(data)}


def _opener(data: Data) -> Callable[[], Source]:
    return lambda: _open_object(data)


def _open_object(data: Data) -> Source:
    if isinstance(data, Source):
        return data
    if isinstance(data, (str, os.PathLike)):
        return open_source(data)
    if hasattr(data, "detach"):  # a tensor (N, H, W[, C])
        data = data.detach().cpu().numpy()
    if isinstance(data, np.ndarray):
        return ArraySource(data)
    if isinstance(data, tuple) and len(data) == 2 and hasattr(data[0], "shape"):
        return ArraySource(np.asarray(data[0]), np.asarray(data[1]))
    if isinstance(data, (list, tuple)) and data and all(_is_path(entry) for entry in data):
        return _folders([_place(entry) for entry in data])
    if type(data).__module__.startswith("datasets.") and hasattr(data, "features"):
        return HuggingFaceSource(data)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return MapSource(data)
    raise UserError(
        f"data of type {type(data).__name__} was given; {FORMATS}, or in Python an array, a pair "
        "(images, labels) or a map-style data set are read"
    )


def _is_path(entry: Any) -> bool:
    return isinstance(entry, (str, os.PathLike))


def _embedded(name: str) -> _Parts:
    if name == "digits":
        return {"": lambda: ArraySource(*embedded.digits(), name="digits")}

    def drawn(n: int, seed: int, split: str) -> Source:
        images, labels = embedded.textures(n, seed)
        return ArraySource(images, labels, list(embedded.TEXTURES), f"textures, {split}")

    return {"train": lambda: drawn(4000, 100, "train"), "test": lambda: drawn(2000, 200, "test")}


def _place(data: str | os.PathLike[str]) -> str:
    """A local path in its plain form, or a URL without a slash at its end."""
    name = os.fspath(data)
    return name.rstrip("/") if remote.is_url(name) else str(Path(name).expanduser())


def _path_parts(path: str) -> _Parts:
    try:
        if remote.is_folder(path):
            return folder_parts(path)
        if not remote.is_file(path):
            raise UserError(f"{path} does not exist; data is {FORMATS}")
        with remote.open_file(path):
            pass
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".tar":
        return {"": lambda: tar_shards([path], path)}
    if suffix == ".index" and not remote.is_url(path):
        return {"": lambda: indexed_shards(path)}
    if suffix == ".parquet":
        return {"": lambda: ParquetShards([path], path)}
    if suffix == ".txt":
        return {"": lambda: path_list(path)}
    if suffix in (".npy", ".npz"):
        return array_parts(path)
    if suffix in IMAGE_SUFFIXES:
        return {"": lambda: FileSource([path], None, path)}
    raise UserError(f"{path} is of no known format; data is {FORMATS}")


def _folders(folders: list[str]) -> Source:
    """Several folders (or image files) as one set; classes where every one of them has some."""
    paths: list[str] = []
    labels: list[Any] = []
    for entry in folders:
        source = open_source(entry)
        if not isinstance(source, FileSource):
            raise UserError(f"{entry} is no folder of images; lists are read of such folders only")
        paths += [source.locate(i) for i in range(len(source))]
        if source.labels is None or source.classes is None:
            labels += [None] * len(source)
        else:
            labels += [source.classes[label] for label in source.labels]
    complete = all(label is not None for label in labels)
    name = ", ".join(folders)
    return FileSource(paths, labels if complete else None, name)
