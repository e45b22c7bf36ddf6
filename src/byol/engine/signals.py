"""Ctrl-C and SIGTERM as something that a loop asks for at a good moment."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_HEARD = (
    b"\nbyol: stopping after this step and saving; press Ctrl-C again to stop at once, without "
    b"saving\n"
)


@contextmanager
def stop_signals(speaks: bool = True) -> Iterator[list[int]]:
    """SIGINT and SIGTERM are put into the list that is yielded, for the loop to act on.

    speaks: say at once, on standard error, that the signal was heard: a step may take long.
    """
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        caught.append(number)
        if speaks and len(caught) == 1:
            with suppress(OSError):  # the terminal may be gone
                os.write(2, _HEARD)  # not print: the signal may have come amid another one

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
