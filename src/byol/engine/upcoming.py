"""Batches with their views, the next of which can be made while the device is still at work."""

import time
from collections.abc import Callable, Iterator

from byol.data.loader import Batch
from byol.engine.gradients import Views


class Upcoming:
    """(batch, views) in order, each made when it is taken or fetched, whichever is first.

    waited: the seconds for which the last fetch waited for data; what a device that was still at
        work meanwhile has felt of it is less.
    """

    def __init__(self, batches: Iterator[Batch], make: Callable[[Batch], Views]) -> None:
        self._batches, self._make = batches, make
        self._next: tuple[Batch, Views] | None = None
        self.waited = 0.0

    def fetch(self) -> None:
        """Make the next one, unless it is made already or there is none."""
        if self._next is None:
            began = time.monotonic()
            batch = next(self._batches, None)
            self.waited = time.monotonic() - began
            self._next = None if batch is None else (batch, self._make(batch))

    def take(self) -> tuple[Batch, Views]:
        """The next one. Raises StopIteration after the last."""
        self.fetch()
        if self._next is None:
            raise StopIteration
        made, self._next = self._next, None
        return made
