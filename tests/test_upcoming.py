"""Batches with their views: in order, each made once, at the latest when it is taken."""

import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from byol.data.loader import Batch
from byol.engine.upcoming import Upcoming


def test_each_is_made_once_and_in_order() -> None:
    made: list[int] = []

    def make(batch: Batch) -> Any:
        made.append(cast(int, batch))
        return [f"views of {batch}"]

    upcoming: Any = Upcoming(iter(cast(list[Batch], [1, 2, 3])), make)
    assert upcoming.take() == (1, ["views of 1"]) and made == [1]
    upcoming.fetch()
    upcoming.fetch()
    assert made == [1, 2]
    assert upcoming.take() == (2, ["views of 2"]) and made == [1, 2]
    assert upcoming.take() == (3, ["views of 3"])
    upcoming.fetch()  # there is none
    with pytest.raises(StopIteration):
        upcoming.take()


def test_waiting_is_for_data_and_not_for_views(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def after(seconds: float, what: Any) -> Any:
        nonlocal now
        now += seconds
        return what

    def batches() -> Iterator[Batch]:
        for number in (1, 2):
            yield after(2.0, number)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    upcoming = Upcoming(batches(), lambda batch: after(5.0, []))
    upcoming.take()
    assert upcoming.waited == 2.0
    upcoming.fetch()
    upcoming.take()  # made before: what its own fetch waited
    assert upcoming.waited == 2.0 and now == 14.0
