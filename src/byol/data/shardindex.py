"""Where each image of a set of tar shards lies: one table, in memory or in a file that is mapped.

The table stands first, the names of the members follow, then a line of JSON (the shards, names of
the classes) and its length. Opening a file reads the end of it: neither start-up nor memory depend
on the number of images, and all processes of a machine share the pages that they look at.
"""

import json
import mmap
import os
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from byol.data import remote
from byol.data.labels import as_labels
from byol.errors import UserError

# Offset and size of the image in its shard, label (-1: none), and where its name ends.
ENTRY = np.dtype(
    [("offset", "<i8"), ("label", "<i8"), ("name_end", "<i8"), ("size", "<u4"), ("shard", "<u4")]
)
_KIND = "index of tar shards, 1"


class ShardIndex:
    """The index in the file `path`, or as the bytes `content`; pickled as the one or the other."""

    def __init__(self, path: str | None, content: bytes = b"") -> None:
        self.path, self._content = path, content

    def __getstate__(self) -> tuple[str | None, bytes]:
        return self.path, self._content

    def __setstate__(self, state: tuple[str | None, bytes]) -> None:
        self.path, self._content = state

    def __len__(self) -> int:
        return int(self._head["count"])

    @cached_property
    def shards(self) -> list[str]:
        """Paths or URLs of the shards; those in a file are relative to it."""
        names: list[str] = self._head["shards"]
        return [remote.beside(self.path, name) for name in names] if self.path else names

    @property
    def classes(self) -> list[str] | None:
        """Their names, where there are labels."""
        found: list[str] | None = self._head["classes"]
        return found

    @property
    def labels(self) -> np.ndarray | None:
        """(N,) int64, -1 where one is missing; None where all are."""
        return None if self.classes is None else self._table["label"]

    def place(self, i: int) -> tuple[str, int, int]:
        """The shard of image i, and offset and size in it."""
        entry = self._table[i]
        return self.shards[entry["shard"]], int(entry["offset"]), int(entry["size"])

    def member(self, i: int) -> str:
        """The name of image i in its shard."""
        start = int(self._table[i - 1]["name_end"]) if i else 0
        return bytes(self._names[start : int(self._table[i]["name_end"])]).decode()

    def write(self, path: str) -> None:
        """The same as a file. Raises OSError."""
        folder = os.path.dirname(os.path.abspath(path))
        shards = [s if remote.is_url(s) else os.path.relpath(s, folder) for s in self.shards]
        table, names = (part.tobytes() for part in (self._table, self._names))
        remote.write(path, _joined(table, names, {**self._head, "shards": shards}))

    @cached_property
    def _bytes(self) -> np.ndarray:
        if self.path is None:
            return np.frombuffer(self._content, np.uint8)
        with open(self.path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):  # not on Windows
            mapped.madvise(mmap.MADV_RANDOM)  # a page at a time, not those around it
        return np.frombuffer(mapped, np.uint8)

    @cached_property
    def _head(self) -> dict[str, Any]:
        try:
            size = int.from_bytes(self._bytes[-8:].tobytes(), "little")
            head: dict[str, Any] = json.loads(self._bytes[-8 - size : -8].tobytes())
            if head["kind"] == _KIND:
                return head
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError):
            pass
        raise UserError(f"{self.path} is no index of tar shards, or damaged: byol index makes one")

    @cached_property
    def _table(self) -> np.ndarray:
        return self._bytes[: len(self) * ENTRY.itemsize].view(ENTRY)

    @cached_property
    def _names(self) -> np.ndarray:
        start = len(self) * ENTRY.itemsize
        return self._bytes[start : start + int(self._head["name_bytes"])]


def build(shards: list[str], indices: Iterable[dict[str, Any]]) -> ShardIndex:
    """The index of a set from those of its shards: {"members": names, "places": [offset, size],
    "labels": numbers, words or None}."""
    tables, names, end = [], [], 0
    numbers: dict[Any, int] = {}  # each label as it is found, in order of appearance
    for shard, index in enumerate(indices):
        members = [member.encode() for member in index["members"]]
        table = np.zeros(len(members), ENTRY)
        places = np.array(index["places"], np.int64).reshape(-1, 2)
        table["shard"], table["offset"], table["size"] = shard, places[:, 0], places[:, 1]
        table["label"] = [numbers.setdefault(label, len(numbers)) for label in index["labels"]]
        table["name_end"] = end + np.cumsum([len(member) for member in members], dtype=np.int64)
        end += sum(map(len, members))
        tables.append(table)
        names.append(b"".join(members))
    whole = np.concatenate(tables)
    labels, classes = as_labels(list(numbers))
    whole["label"] = -1 if labels is None else labels[whole["label"]]
    head = {"shards": shards, "classes": classes, "count": len(whole), "name_bytes": end}
    return ShardIndex(None, _joined(whole.tobytes(), b"".join(names), head))


def _joined(table: bytes, names: bytes, head: dict[str, Any]) -> bytes:
    line = json.dumps({**head, "kind": _KIND}).encode()
    return b"".join((table, names, line, len(line).to_bytes(8, "little")))
