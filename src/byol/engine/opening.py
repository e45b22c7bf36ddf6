"""Data that several processes read: one of them lists the files and indexes the shards, for all."""

import os
from typing import Any

from byol.data.remote import is_url
from byol.data.source import Splits, open_splits
from byol.engine.processes import Processes
from byol.errors import UserError


def open_together(
    processes: Processes, data: Any, eval_data: Any = None, split: str | None = None
) -> Splits:
    """open_splits in the main process; the others get what it found, and look for its files.

    Objects of Python (arrays, data sets) are each process's own. UserError in all processes where
    the data cannot be opened, or where one of them does not see the same files.
    """
    asked = (data, eval_data, split)
    processes.agree({"data": _name(data), "eval_data": _name(eval_data), "split": split})
    splits = None
    with processes.together():
        if processes.is_main or not (_is_named(data) and _is_named(eval_data)):
            splits = open_splits(*asked)
    if _is_named(data) and _is_named(eval_data):
        splits = processes.from_main(splits)
    assert splits is not None
    with processes.together():
        size = sum(_size(part) for part in (splits.train, splits.test))
    processes.agree({"data of so many bytes": size})
    return splits


def _is_named(data: Any) -> bool:
    """Whether data is paths, or a set that comes with the package."""
    if isinstance(data, (list, tuple)):
        return all(_is_named(entry) for entry in data)
    return data is None or isinstance(data, (str, os.PathLike))


def _name(data: Any) -> str:
    return str(data) if _is_named(data) else type(data).__name__


def _size(source: Any) -> int:
    """Bytes of the local files of a source, of a thousand of them where they are very many."""
    paths = [path for path in getattr(source, "files", ()) if not is_url(path)]
    try:
        return sum(os.path.getsize(path) for path in paths[:: len(paths) // 1000 + 1])
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be read here ({error.strerror}), and rank 0 has found it: "
            "all machines must see the same files"
        ) from error
