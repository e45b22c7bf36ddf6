"""All files below a folder, remembered so that a large set opens quickly the next time."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from byol.data import remote
from byol.errors import UserError

_MANY = 50_000  # files, from which on what was found is kept
_SETTLED = 2e9  # nanoseconds after which a change shows in a folder's time of modification
_Known = dict[str, list[Any]]  # folder: its time of modification, its folders, its files


def files_below(folder: str) -> list[str]:
    """Visible files below a local folder by their paths in it, ordered by the parts of the path.

    Links are followed, and a folder that is met twice counts once. The list of a set of many files
    is kept in the user's cache folder; later only folders with another time of modification are
    read again. Raises UserError for what cannot be read.
    """
    record = _record(folder)
    known: _Known = {}
    with suppress(OSError, ValueError):
        known = json.loads(record.read_bytes())
    found: list[str] = []
    seen: _Known = {}
    try:
        _walk(folder, "", known, seen, set(), found)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    if len(found) >= _MANY and seen != known:
        with suppress(OSError):  # the next opening is slow again
            record.parent.mkdir(parents=True, exist_ok=True)
            remote.write(str(record), json.dumps(seen).encode())
    return found


def visible(path: str) -> bool:
    """Whether no part of a path is hidden or left behind by macOS."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _record(folder: str) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "byol" / "listings"
    return home / f"{hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()[:16]}.json"


def _walk(
    root: str,
    below: str,
    known: _Known,
    seen: _Known,
    met: set[tuple[int, int]],
    found: list[str],
) -> None:
    """Append to `found` the files of the folder `below` (a path in root that ends in /, or "")."""
    path = os.path.join(root, below)
    stat = os.stat(path)
    if (stat.st_dev, stat.st_ino) in met:  # such as a link back up
        return
    met.add((stat.st_dev, stat.st_ino))
    if below in known and known[below][0] == stat.st_mtime_ns:
        _, folders, files = known[below]
    else:
        with os.scandir(path) as entries:
            kinds = {entry.name: entry.is_dir() for entry in entries if visible(entry.name)}
        folders = sorted(name for name, is_folder in kinds.items() if is_folder)
        files = sorted(name for name, is_folder in kinds.items() if not is_folder)
    settled = time.time_ns() - stat.st_mtime_ns > _SETTLED
    seen[below] = [stat.st_mtime_ns if settled else -1, folders, files]
    if not folders:
        found += [below + name for name in files]
        return
    inner = set(folders)
    for name in sorted([*folders, *files]):
        if name in inner:
            _walk(root, f"{below}{name}/", known, seen, met, found)
        else:
            found.append(below + name)
