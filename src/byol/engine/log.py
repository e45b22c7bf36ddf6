"""A run's numbers on disk: `metrics.jsonl`, and TensorBoard events beside it."""

import io
import json
import math
import os
import socket
import time
import warnings
from pathlib import Path
from typing import Any, TypeAlias

from byol.engine.files import atomic_write, write_all, write_error

Number: TypeAlias = float | int | str | bool | None


class Log:
    """Append-only `metrics.jsonl` (one {"step": ..., ...} a line) and TensorBoard events beside it.

    resume_step: the step of the checkpoint that was loaded. Lines of a later step and a last line
        cut in half by a kill are removed, since the run writes them again. 0: from the beginning,
        every line is removed.
    Every line is handed to the system at once, so a killed process loses none. Raises UserError
    when the disk is full or the folder not writable.
    """

    def __init__(self, folder: str | Path, resume_step: int) -> None:
        self._path = Path(folder) / "metrics.jsonl"
        _cut(self._path, resume_step)
        self._file = _open_to_append(self._path)
        self._events = _Events(Path(folder) / "tensorboard", resume_step)

    def write(self, step: int, **numbers: Number) -> None:
        """Add one line. A number that is not finite is written as null (JSON knows no NaN)."""
        line = {"step": step, **{name: _finite(value) for name, value in numbers.items()}}
        _append(self._path, self._file, json.dumps(line).encode() + b"\n")
        self._events.write(step, line)

    def close(self) -> None:
        self._file.close()
        self._events.close()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _finite(value: Number) -> Number:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cut(path: Path, resume_step: int) -> None:
    """Keep the whole lines of steps up to `resume_step`."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if resume_step > 0 and _step(line) <= resume_step]
    if kept != lines:
        atomic_write(path, b"".join(kept))


def _step(line: bytes) -> float:
    """The step of a line; infinite where the line is not whole."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def _open_to_append(path: Path) -> io.FileIO:
    try:
        return open(path, "ab", buffering=0)
    except OSError as error:
        raise write_error(path, 0, error) from error


def _append(path: Path, file: io.FileIO, data: bytes) -> None:
    try:
        write_all(file.fileno(), data)
    except OSError as error:
        raise write_error(path, len(data), error) from error


class _Events:
    """TensorBoard's file format through its own record writer.

    Not `torch.utils.tensorboard`: that one writes from a thread, where a full disk goes unseen, and
    loads TensorFlow where it is installed.
    """

    def __init__(self, folder: Path, resume_step: int) -> None:
        with warnings.catch_warnings():  # its imports are not ours to mend
            warnings.simplefilter("ignore")
            from tensorboard.compat.proto import (  # type: ignore[import-untyped]
                event_pb2,
                summary_pb2,
            )
            from tensorboard.summary.writer.record_writer import (  # type: ignore[import-untyped]
                RecordWriter,
            )

        self._frame: Any = RecordWriter
        self._event: Any = event_pb2.Event
        self._summary: Any = summary_pb2.Summary
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise write_error(folder, 0, error) from error
        self._file = _open_to_append(self._path)
        self._record(file_version="brain.Event:2")
        # Tells TensorBoard to forget the later points of the interrupted process.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._record(step=resume_step + 1 if resume_step > 0 else 0, session_log=start)

    def write(self, step: int, line: dict[str, Number]) -> None:
        values = [
            self._summary.Value(tag=tag, simple_value=value)
            for tag, value in line.items()
            if tag != "step" and isinstance(value, (int, float))
        ]
        if values:
            self._record(step=step, summary=self._summary(value=values))

    def close(self) -> None:
        self._file.close()

    def _record(self, **fields: Any) -> None:
        record = io.BytesIO()
        event = self._event(wall_time=time.time(), **fields)
        self._frame(record).write(event.SerializeToString())
        _append(self._path, self._file, record.getvalue())
