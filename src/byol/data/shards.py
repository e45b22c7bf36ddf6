"""Images in shards, read at random: tar files in the WebDataset layout and Parquet tables in the
Hugging Face image layout.
"""

import json
import tarfile
from bisect import bisect_right
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from byol.data import remote
from byol.data.labels import LABEL_NAMES, as_labels
from byol.data.shardindex import ShardIndex, build
from byol.errors import UserError

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2"),
)
_CACHE_BYTES = 256 * 2**20  # of encoded images, in each process


class TarShards:
    """Samples of tar shards: members `KEY.jpg` with `KEY.cls` or `KEY.json` beside them.

    An image is one seek and one read, or one request.
    """

    def __init__(self, index: ShardIndex, name: str) -> None:
        self.name, self.index, self.classes = name, index, index.classes
        self._labels: np.ndarray | None = None  # where they are other than the index's
        if not len(index):
            raise UserError(f"{name} holds no images: tar members that end in .jpg, .png, ... are")

    @property
    def labels(self) -> np.ndarray | None:
        return self.index.labels if self._labels is None else self._labels

    @labels.setter
    def labels(self, labels: np.ndarray | None) -> None:
        self._labels = labels

    @property
    def files(self) -> list[str]:
        """What is read: the file of the index, if there is one, and the shards."""
        return [*([self.index.path] if self.index.path else []), *self.index.shards]

    def __len__(self) -> int:
        return len(self.index)

    def read(self, i: int) -> tuple[bytes, int | None]:
        encoded = remote.read(*self.index.place(i))
        return encoded, None if self.labels is None else int(self.labels[i])

    def locate(self, i: int) -> str:
        return f"{self.index.place(i)[0]}:{self.index.member(i)}"


def tar_shards(paths: list[str], name: str) -> TarShards:
    """The samples of these shards. Where each lies is found once and kept beside each shard as
    `SHARD.index.json`, or in memory alone where the folder cannot be written to."""
    return TarShards(build(paths, remote.each(_tar_index, paths)), name)


def indexed_shards(path: str) -> TarShards:
    """The samples of the shards that an index file names; a few of these are looked for."""
    index = ShardIndex(path)
    some = index.shards[:: len(index.shards) // 16 + 1]
    try:
        remote.each(remote.stamp, some)
    except OSError as error:
        raise UserError(f"{path} names shards that cannot be read: {error}") from error
    return TarShards(index, path)


def _tar_index(path: str) -> dict[str, Any]:
    """{"members": names, "places": [offset, size], "labels": ...} of one shard."""
    kept = f"{path}.index.json"
    try:
        stamp = remote.stamp(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    try:
        index: dict[str, Any] = json.loads(remote.read(kept))
        if index["stamp"] == stamp:
            return index
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none, or one that is damaged or from another time
    try:
        index = _scan_tar(path)
    except (OSError, tarfile.TarError) as error:
        raise UserError(
            f"{path} cannot be read as an uncompressed tar file ({error}); shards must be plain "
            ".tar files"
        ) from error
    index["stamp"] = stamp
    with suppress(OSError):
        remote.write(kept, json.dumps(index).encode())
    return index


def _scan_tar(path: str) -> dict[str, Any]:
    images: dict[str, tuple[str, list[int]]] = {}  # key to member and place, in file order
    labels: dict[str, Any] = {}
    with remote.open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            folder, _, base = member.name.rpartition("/")
            stem, _, ending = base.partition(".")
            if not member.isfile() or not stem:
                continue
            key, suffix = f"{folder}/{stem}", f".{ending.rpartition('.')[2].lower()}"
            if suffix in IMAGE_SUFFIXES:
                images.setdefault(key, (member.name, [member.offset_data, member.size]))
            elif suffix == ".cls" or (suffix == ".json" and key not in labels):
                beside = tar.extractfile(member)
                labels[key] = _tar_label(beside.read() if beside else b"", suffix)
    return {
        "members": [member for member, _ in images.values()],
        "places": [place for _, place in images.values()],
        "labels": [labels.get(key) for key in images],
    }


def _tar_label(content: bytes, suffix: str) -> int | str | None:
    text = content.decode("utf-8", "replace").strip()
    if suffix == ".cls":
        return text or None
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return fields if isinstance(fields, (int, str)) else None
    found = [fields[name] for name in LABEL_NAMES if isinstance(fields.get(name), (int, str))]
    return found[0] if found else None


class ParquetShards:
    """Rows of Parquet files with a column `image: {bytes, path}` (or plain bytes) and maybe labels.

    Whole row groups are read and the latest kept, 256 MB of them in each process: sets up to that
    size are read once, larger ones are quicker in small row groups (or as tar shards).
    """

    def __init__(self, paths: list[str], name: str) -> None:
        self.name, self.files = name, paths
        self._image, self._label, names = _columns(_open_parquet(paths[0]).schema_arrow, paths[0])
        self._groups: list[tuple[int, int]] = []  # file and row group within it
        starts, first_rows, labels = [0], [], []
        footers = remote.each(partial(_footer, label=self._label), paths)
        for number, (rows, values) in enumerate(footers):
            first = starts[-1]
            for group, count in enumerate(rows):
                self._groups.append((number, group))
                first_rows.append(starts[-1] - first)
                starts.append(starts[-1] + count)
            labels += values
        self._starts, self._first_rows = starts, first_rows
        self.labels, self.classes = as_labels(labels, names)
        self._cache: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        if len(self) == 0:
            raise UserError(f"{name} holds no rows")

    def __len__(self) -> int:
        return self._starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}

    def read(self, i: int) -> tuple[bytes, int | None]:
        group = bisect_right(self._starts, i) - 1
        contents, paths = self._group(group)
        row = i - self._starts[group]
        encoded = contents[row].as_py()
        if encoded is None:  # the row names a file instead of holding it
            named = paths[row].as_py() if paths is not None else None
            if named is None:
                raise OSError("the row holds neither bytes nor a path")
            encoded = remote.read(remote.beside(self.files[self._groups[group][0]], named))
        return encoded, None if self.labels is None else int(self.labels[i])

    def locate(self, i: int) -> str:
        group = bisect_right(self._starts, i) - 1
        row = self._first_rows[group] + i - self._starts[group]
        return f"{self.files[self._groups[group][0]]}:row {row}"

    def _group(self, group: int) -> tuple[Any, Any]:
        """Arrow arrays of one row group: encoded images, and paths or None."""
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        import pyarrow as pa

        file, number = self._groups[group]
        try:
            with _open_parquet(self.files[file]) as table:
                read = table.read_row_group(number, columns=[self._image], use_threads=False)
        except (pa.ArrowException, UserError) as error:
            raise OSError(f"row group {number} cannot be read: {error}") from error
        column = read.column(0).combine_chunks()
        if pa.types.is_struct(column.type):
            has_paths = column.type.get_field_index("path") >= 0
            entry = (column.field("bytes"), column.field("path") if has_paths else None)
        else:
            entry = (column, None)
        self._cache[group] = entry
        while len(self._cache) > 1 and _size(self._cache) > _CACHE_BYTES:
            self._cache.popitem(last=False)
        return entry


def _size(cache: "OrderedDict[int, tuple[Any, Any]]") -> int:
    return sum(contents.nbytes for contents, _ in cache.values())


def _open_parquet(path: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(remote.open_file(path) if remote.is_url(path) else path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as Parquet: {reason}") from error


def _footer(path: str, label: str | None) -> tuple[list[int], list[Any]]:
    """Rows of each row group of a file, and its labels."""
    with _open_parquet(path) as table:
        groups = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
        if label is None:
            return groups, []
        if label not in table.schema_arrow.names:
            raise UserError(f"{path} has no column {label!r}, which the first shard has")
        column = table.read(columns=[label], use_threads=False).column(0)
        return groups, column.to_pylist()


def _columns(schema: Any, path: str) -> tuple[str, str | None, list[str] | None]:
    """Names of the image and the label column, and class names, of an Arrow schema."""
    import pyarrow as pa

    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features: dict[str, Any] = (metadata.get("info") or {}).get("features") or {}
    kinds = {name: f.get("_type") for name, f in features.items() if isinstance(f, dict)}

    def holds_images(field: Any) -> bool:
        if pa.types.is_struct(field.type):
            return bool(field.type.get_field_index("bytes") >= 0)
        return bool(pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type))

    images = [field.name for field in schema if holds_images(field)]
    images.sort(key=lambda name: kinds.get(name) != "Image")  # stable: declared ones first
    if not images:
        raise UserError(
            f"{path} has the columns {', '.join(schema.names)}; none holds encoded images, which "
            "are expected as `image: {bytes, path}`"
        )
    labels = [name for name in schema.names if kinds.get(name) == "ClassLabel"]
    labels.sort(key=lambda name: name not in LABEL_NAMES)
    labels += [name for name in LABEL_NAMES if name in schema.names]
    label = labels[0] if labels else None
    names = features[label].get("names") if label and kinds.get(label) == "ClassLabel" else None
    return images[0], label, names
