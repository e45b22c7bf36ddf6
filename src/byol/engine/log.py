"""What a run says: numbers to `metrics.jsonl` and TensorBoard, progress to the terminal."""

import io
import json
import math
import os
import socket
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from byol.engine.files import atomic_write, write_all, write_error

Number: TypeAlias = float | int | str | bool | None
Mode: TypeAlias = Literal["auto", "plain", "quiet"]

SECONDS_BETWEEN_LINES = 10.0
_HUNGRY, _HUNGRY_SECONDS = 0.05, 60.0  # a larger share of waiting for so long is worth a sentence


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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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


@dataclass
class _Recent:
    """Sums in which a step that lies `window` seconds back counts a factor e less."""

    window: float
    steps: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, steps: int, seconds: float, waited: float) -> None:
        keep = math.exp(-seconds / self.window)
        self.steps = self.steps * keep + steps
        self.seconds = self.seconds * keep + seconds
        self.waited = self.waited * keep + waited

    def forget(self) -> None:
        self.steps = self.seconds = self.waited = 0.0

    def rate(self) -> float:
        """Steps per second; 0 before the first step."""
        return self.steps / self.seconds if self.seconds > 0 else 0.0

    def waiting(self) -> float:
        """Share of the time spent waiting for data, 0 to 1."""
        return min(self.waited / self.seconds, 1.0) if self.seconds > 0 else 0.0


class Progress:
    """A live bar on a terminal, a plain line every 10 seconds elsewhere, nothing when quiet.

    mode: "auto" (bar if standard output is a terminal, else plain), "plain" or "quiet".
    start_step: the step the run goes on from; `batch_size` images a step give images/s.
    """

    def __init__(
        self, total_steps: int, batch_size: int, start_step: int, mode: Mode, title: str
    ) -> None:
        self._total, self._batch_size, self._title = total_steps, batch_size, title
        self._step, self._advances = start_step, 0
        self._fields: dict[str, Number] = {}
        self._speed = _Recent(window=30.0)
        self._pace = _Recent(window=300.0)  # longer, so that a pause for kNN does not shake the ETA
        self._quiet = mode == "quiet"
        self._console = Console()
        self._live: Live | None = None
        if mode == "auto" and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, get_renderable=self._bar)

    def __enter__(self) -> "Progress":
        self._last = self._last_line = self._fed = time.monotonic()
        self._printed_step = self._step
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()
        elif self._step != self._printed_step:
            self._print_line()

    def advance(self, step: int, waited_seconds: float, **fields: Number) -> None:
        """`step` steps are done; the host waited `waited_seconds` for the data of the last ones.
        A field (loss, lr, tau, kNN, verdict) is shown until it is given again."""
        now = time.monotonic()
        for recent in (self._speed, self._pace):
            if self._advances == 1:
                recent.forget()  # the first step warms up or compiles: no measure of the rest
            recent.add(step - self._step, now - self._last, waited_seconds)
        self._step, self._last, self._advances = step, now, self._advances + 1
        self._fields.update(fields)
        if self._speed.waiting() <= _HUNGRY:
            self._fed = max(self._fed, now)  # infinite once it was said
        elif now - self._fed > _HUNGRY_SECONDS:
            self._fed = math.inf
            self.say(
                f"{self._speed.waiting():.0%} of the time is spent waiting for data: give more "
                "--workers where cores are idle, or smaller image files; a set of images of one "
                "size that fits in memory is decoded only once"
            )
        if not self._live and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._print_line()

    def say(self, sentence: str, warning: bool = False) -> None:
        """Print one sentence above the bar. A quiet run prints warnings only, on standard error."""
        if self._live and self._live.is_started:
            self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)
        elif not self._quiet:
            print(sentence, flush=True)
        elif warning:
            print(sentence, file=sys.stderr, flush=True)

    def line(self) -> str:
        """The state of the run: step, speed, time left, share of waiting, the fields."""
        images = self._speed.rate() * self._batch_size
        pace = self._pace.rate()
        left = duration((self._total - self._step) / pace) if pace > 0 else "?"
        parts = [
            f"step {self._step}/{self._total}",
            f"{images:.0f} images/s" if images > 9.5 else f"{images:.1f} images/s",
            f"{left} left",
            f"waiting for data {self._speed.waiting():.0%}",
            *(f"{name} {_short(value)}" for name, value in self._fields.items()),
        ]
        return " | ".join(parts)

    def _print_line(self) -> None:
        self._last_line, self._printed_step = time.monotonic(), self._step
        self.say(f"{self._title}: {self.line()}")

    def _bar(self) -> Group:
        top = Table.grid(padding=(0, 1), expand=True)
        top.add_column(no_wrap=True)
        top.add_column(ratio=1)
        top.add_row(Text(self._title), ProgressBar(total=max(self._total, 1), completed=self._step))
        return Group(top, Text(self.line()))


def duration(seconds: float) -> str:
    """Time for people, two units at most: "45 s", "4 min 10 s", "2 h 05 min", "3 d 4 h"."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60:02d} s"
    if s < 86400:
        return f"{s // 3600} h {s % 3600 // 60:02d} min"
    return f"{s // 86400} d {s % 86400 // 3600} h"


def _short(value: Number) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"  # five digits, so that a tau of 0.99996 does not read 1
    return "-" if value is None else str(value)
