"""Ctrl-C and SIGTERM as something that a loop asks for at a good moment."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are put into the list that is yielded, for the loop to act on."""
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        caught.append(number)

    before: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                before[number] = signal.signal(number, remember)
            except ValueError:  # not the main thread: whoever runs us handles signals
                pass
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
