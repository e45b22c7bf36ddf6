"""How the processes of a run find each other: torch's rendezvous, a store for this start alone."""

import os
import time
import uuid
from datetime import timedelta
from functools import cache

import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from byol.engine.place import Place, meeting_point
from byol.errors import UserError

START_SECONDS = 300  # in which all processes must have come
STEP_SECONDS = 600  # in which all must reach the same step


def meet(here: Place, wants_gpu: bool) -> Store:
    """Connect with the others; the store in which they met. Raises UserError where they cannot."""
    meeting_point()
    try:
        point = (os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT"))
        store = _fresh(_common(point, here.rank, here.world), here.rank, here.world)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if wants_gpu else "gloo",
            store=PrefixStore("group", store),
            rank=here.rank,
            world_size=here.world,
            timeout=timedelta(seconds=STEP_SECONDS),
        )
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        busy = "EADDRINUSE" in reason or "already in use" in reason
        advice = "give another MASTER_PORT" if busy else "check that it can be reached"
        raise UserError(
            f"rank {here.rank} of {here.world} could not meet the others at {address} ({reason}): "
            f"{advice}"
        ) from error
    return store


@cache
def _common(point: tuple[str | None, ...], rank: int, world: int) -> Store:
    """torch's store at that address and port; one for all starts of a process, as another could
    be reached by those that still see the one before it."""
    limit = timedelta(seconds=START_SECONDS)
    store: Store = next(rendezvous("env://", rank, world, timeout=limit))[0]
    return store


def _fresh(common: Store, rank: int, world: int) -> Store:
    """A part of the store that no earlier start has written to.

    torchrun keeps one store for all its restarts, where the addresses of processes that are gone
    would still stand. So each process says a word of its own, and the first tells its part of the
    store to every word that it finds, old or new, until as many as are expected have heard it.
    """
    word = uuid.uuid4().hex
    if rank > 0:
        common.set(f"word/{rank}", word)
        name = common.get(f"answer/{word}").decode()
        common.add(f"{name}/heard", 1)
        return PrefixStore(name, common)
    told: set[str] = set()
    until = time.monotonic() + START_SECONDS
    while (heard := common.add(f"{word}/heard", 0)) < world - 1:
        if time.monotonic() > until:
            raise RuntimeError(f"{heard + 1} of {world} came within {START_SECONDS} seconds")
        for other in range(1, world):
            if common.check([f"word/{other}"]):
                said = common.get(f"word/{other}").decode()
                if said not in told:
                    common.set(f"answer/{said}", word)
                    told.add(said)
        time.sleep(0.02)
    return PrefixStore(word, common)
