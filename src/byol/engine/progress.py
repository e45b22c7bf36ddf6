"""A run's progress on the terminal: a live bar, or a line now and then."""

import math
import sys
import time
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from byol.engine.log import Number

Mode: TypeAlias = Literal["auto", "plain", "quiet"]

SECONDS_BETWEEN_LINES = 10.0
_HUNGRY, _HUNGRY_SECONDS = 0.05, 60.0  # a larger share of waiting for so long is worth a sentence


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

    def __exit__(self, *error: object) -> None:
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
