"""How the processes of a run find each other: torch's rendezvous, a store for this start alone."""

import os
import socket
import time
import uuid
from datetime import timedelta
from functools import cache
from threading import Thread

import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from byol.engine.place import Place, meeting_point
from byol.errors import Agreed, UserError

START_SECONDS = 300  # in which all processes must have come
ANSWER_SECONDS = 20  # in which a store that listens must answer
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
    except (RuntimeError, ValueError, OSError) as error:
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
    if rank > 0:
        _await_listener(str(point[0]), int(point[1] or 0))
    store = _answer(rank, world, START_SECONDS if rank == 0 else ANSWER_SECONDS)
    store.set_timeout(timedelta(seconds=START_SECONDS))
    return PrefixStore(os.environ.get("SLURM_JOB_ID", "byol"), store)


def _await_listener(address: str, port: int) -> None:
    """Wait until the first process listens; OSError."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            return socket.create_connection((address, port), 5).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _answer(rank: int, world: int, seconds: float) -> Store:
    """The store, which torch would ask for ever where another program listens on its port.

    That the first process has found, and says it.
    """
    found: list[Store | Exception] = []

    def ask() -> None:
        try:
            limit = timedelta(seconds=seconds)
            found.append(next(rendezvous("env://", rank, world, timeout=limit))[0])
        except Exception as error:
            found.append(error)

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2 * seconds)
    answer = found[0] if found else RuntimeError("no answer")
    if isinstance(answer, Exception):
        raise Agreed("another program listens on the port") if rank else answer from answer
    return answer


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
