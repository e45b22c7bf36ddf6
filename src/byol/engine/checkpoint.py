"""Checkpoints that survive a kill at any moment, a full disk and a damaged file.

A checkpoint is one file, `step-00001240-<first 16 hex digits of its SHA-256>.pt`: written to a
temporary name, flushed, renamed, and read back as data only (no pickled code is ever run).
"""

import hashlib
import io
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from byol.engine.files import atomic_write as atomic_write
from byol.engine.processes import ALONE, Processes
from byol.errors import Agreed

_NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{16})\.pt")
_PLAIN = (int, float, str, bool, type(None))
_KEPT = 2

State = dict[str, Any]


def save(folder: Path, step: int, state: State) -> Path:
    """Write the state after `step` optimizer steps and keep the newest two; return the new file.

    state: nested dicts, lists and tuples of tensors, numbers, strings, booleans and None; anything
        else raises TypeError (it could not be read back as data). Strides are kept.
    Raises UserError when the disk is full or the folder not writable; older files stay then.
    """
    _check_plain(state, "state")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    path = folder / f"step-{step:08d}-{_checksum(data)}.pt"
    atomic_write(path, data)
    _remove_old(folder, path, step)
    return path


def newest(
    folder: Path, report: Callable[[str], None], processes: Processes = ALONE
) -> tuple[int, State] | None:
    """(step, state) of the newest checkpoint that is whole, tensors on the CPU; None without one.

    `report` gets one sentence for every damaged file that is passed over. Of several processes
    each reads the file, and one that any of them cannot read is passed over by all; raises
    UserError where that leaves nothing although some could read.
    """
    found = processes.from_main([(step, str(path)) for step, path in _list(folder)])
    is_shared = True
    for step, path in found:
        state, reason = _try(Path(path))
        reasons = processes.gather(reason)
        if not any(reasons):
            return step, state
        is_shared &= all(reasons)
        if processes.is_main:
            report(f"{path} is damaged ({_first(reasons)}); the checkpoint before it is used")
    if not is_shared:
        raise Agreed(
            f"some processes can read checkpoints of {folder} that others cannot: put the run "
            "folder on a file system that all machines share"
        )
    if found and processes.is_main:
        report(f"no checkpoint in {folder} can be read: the run begins again at step 0")
    return None


def _try(path: Path) -> tuple[State, str | None]:
    """The state, or why there is none."""
    try:
        return _read(path), None
    except Exception as error:  # torch.load raises many kinds on damaged or foreign content
        return {}, (str(error).splitlines() or [""])[0] or type(error).__name__


def _first(reasons: list[str | None]) -> str:
    """The first reason; of several processes with its rank where others could read."""
    rank, reason = next((rank, text) for rank, text in enumerate(reasons) if text)
    return str(reason) if all(reasons) else f"rank {rank}: {reason}"


def newest_step(folder: Path) -> int:
    """Step of the newest checkpoint by its name, -1 without one; nothing is read."""
    return max((step for step, _ in _list(folder)), default=-1)


def _read(path: Path) -> State:
    data = path.read_bytes()
    if _checksum(data) not in path.name:
        raise ValueError("its content does not match its checksum")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError("it holds something other than tensors and plain values") from error
    return cast(State, state)


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _list(folder: Path) -> list[tuple[int, Path]]:
    """(step, file), newest first; of two with the same step the one written last."""
    if not folder.is_dir():
        return []
    named = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    found = [(int(match[1]), path.stat().st_mtime_ns, path) for match, path in named]
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


def _remove_old(folder: Path, written: Path, step: int) -> None:
    """Keep `written` and the one before it. Files of the same or a later step are left from before
    a resume, hence damaged: were they counted, they would push out a good one."""
    before = [path for other, path in _list(folder) if other < step]
    for _, path in _list(folder):
        if path != written and path not in before[: _KEPT - 1]:
            path.unlink(missing_ok=True)


def _check_plain(value: object, place: str) -> None:
    # By exact type: numpy's float64 is a float, but not one that weights_only reads back.
    if type(value) in (dict, OrderedDict):
        for key, item in cast(dict[object, object], value).items():
            _check_plain(key, f"the keys of {place}")
            _check_plain(item, f"{place}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, item in enumerate(cast(list[object], value)):
            _check_plain(item, f"{place}[{i}]")
    elif not isinstance(value, Tensor) and type(value) not in _PLAIN:
        raise TypeError(f"{place} is a {type(value).__name__}: not a tensor or a plain value")
