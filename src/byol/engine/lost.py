"""Why a run of several processes ends: the one that ends tells the others, or is missed by them."""

import re
import time

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from byol.errors import Lost, UserError

_SECONDS = 4  # in which those that still live say so, after one was lost
_FELT = re.compile(r"clos|reset|peer|timed? ?out|broken pipe|nccl|refused|unreachable", re.I)
_SILENT = "ended without a word (killed, or its machine is gone)"


def report(error: Exception, rank: int, names: list[str], store: Store) -> Lost | None:
    """Tell the others why this process, `rank`, ends; Lost where the reason is another one's end.

    names: what to call the processes, by rank. One of those that remain is chosen to speak.
    """
    felt = isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and _FELT.search(str(error)) is not None
    )
    cause = f"ended with {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    try:
        store.set(f"ended/{rank}", "" if felt else cause)
        causes = _collect(len(names), store) if felt else {}
        _leave(rank, store, len(causes) if felt else len(names))
    except RuntimeError:  # the store has gone with the process that kept it
        return _lost(0, names, _SILENT, rank == 1) if felt else None
    if not felt:
        return None
    known = {other: text for other, text in causes.items() if text}
    silent = {other: _SILENT for other in range(len(names)) if other not in causes}
    for other, text in (known or silent).items():
        first = rank == min(causes.keys() - known.keys())
        return _lost(other, names, text, first and UserError.__name__ not in text)
    return None


def _collect(world: int, store: Store) -> dict[int, str]:
    """What those that still run, or ended with a word, have said within a few seconds."""
    causes: dict[int, str] = {}
    until = time.monotonic() + _SECONDS
    while len(causes) < world and time.monotonic() < until:
        time.sleep(0.1)
        for rank in set(range(world)) - causes.keys():
            if store.check([f"ended/{rank}"]):
                causes[rank] = store.get(f"ended/{rank}").decode()
    return causes


def _leave(rank: int, store: Store, others: int) -> None:
    """The first process, which may keep the store, leaves when the others have read it."""
    store.add("left", 1)
    until = time.monotonic() + _SECONDS
    while rank == 0 and store.add("left", 0) < others and time.monotonic() < until:
        time.sleep(0.05)


def _lost(rank: int, names: list[str], cause: str, speaks: bool) -> Lost:
    return Lost(f"rank {rank} ({names[rank]}) {cause}; the same command goes on", speaks)
