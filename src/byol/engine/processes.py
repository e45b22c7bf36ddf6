"""The processes of a run, as torchrun or srun started them: who they are, what they agree on.

torch.distributed does the work: gloo between CPUs and for what is agreed, NCCL between GPUs.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from byol.engine import device as devices
from byol.engine.lost import report
from byol.engine.meeting import meet
from byol.engine.place import Place, place
from byol.errors import Agreed, Interrupted, UserError
from byol.options import flat

T = TypeVar("T")
WORK_SECONDS = 7 * 86400  # for which others wait while one of them measures


@dataclass(frozen=True)
class Processes:
    """The processes of a run; the default is a process by itself, for which all of this is free."""

    place: Place = Place()
    control: Any = None  # the gloo group in which they agree; None for one process
    names: list[str] = field(default_factory=lambda: ["this process"])
    local_world: int = 1  # processes on this machine
    gpu: int | None = None  # of several processes: the one that none of the others uses

    @property
    def rank(self) -> int:
        return self.place.rank

    @property
    def world(self) -> int:
        return self.place.world

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank, on all of them; waits for all."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, self.control)
        return values

    def from_main(self, value: T) -> T:
        """The main process's value on all; the others wait for it as long as it takes."""
        if self.world == 1:
            return value
        held: list[Any] = [value]
        dist.broadcast_object_list(held, 0, self.control)
        return held[0]

    def agree(self, values: Mapping[str, Any]) -> None:
        """Raise UserError where a process was given other values (nested) than the main one."""
        for rank, others in enumerate(self.gather(flat(values))):
            if rank == 0:
                asked = others
            wrong = [key for key in {**asked, **others} if asked.get(key) != others.get(key)]
            if wrong:
                key = wrong[0]
                raise Agreed(
                    f"rank {rank} ({self.names[rank]}) was given {key} = {others.get(key)!r} and "
                    f"rank 0 {asked.get(key)!r}: start all processes with the same command and data"
                )

    def any(self, flags: list[Tensor]) -> list[bool]:
        """For each flag (a scalar on the device) whether any process raised it; one small
        reduction, one transfer from the device."""
        raised = torch.stack(flags).to(torch.float32)  # (flags,)
        if self.world > 1:
            dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [value > 0 for value in raised.tolist()]

    def mean_(self, tensors: list[Tensor]) -> None:
        """Replace tensors of one type by their mean over all processes, in one reduction."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = (flat / self.world).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def rows(self, rows: Tensor) -> Tensor:
        """(n, ...) of each process, n of its own, to (N, ...) of all, by rank."""
        if self.world == 1:
            return rows
        counts = self.gather(len(rows))
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails in one process fails in all, with the sentence of the first. Waits for all."""
        said = None
        try:
            yield
        except UserError as error:
            if self.world == 1:
                raise
            said = str(error)
        wrong = {rank: text for rank, text in enumerate(self.gather(said)) if text is not None}
        if not wrong:
            return
        rank, text = next(iter(wrong.items()))
        everywhere = len(wrong) == self.world
        raise Agreed(text if everywhere else f"rank {rank} ({self.names[rank]}): {text}")

    def share(self, n: int) -> range:
        """Which of n things are this process's: contiguous, by rank, each thing exactly once."""
        return range(n * self.rank // self.world, n * (self.rank + 1) // self.world)


ALONE = Processes()


def pick_device(name: str, processes: Processes) -> torch.device:
    """The device of that name for this process: of several GPUs, its own.

    Raises UserError as devices.pick_device does, and where there are more processes than GPUs.
    """
    if processes.gpu is not None:  # before anything is put on the first one
        torch.cuda.set_device(processes.gpu)
    found = devices.pick_device(name)
    if processes.world == 1 or found.type != "cuda":
        return found
    if found.index is not None or processes.gpu is None:
        shared = found if found.index is not None else f"{torch.cuda.device_count()} GPU(s)"
        raise UserError(
            f"{processes.local_world} processes on {socket.gethostname()} cannot share "
            f"{shared}: start one process for each GPU (--nproc-per-node gpu) and leave the number "
            "out of --device"
        )
    return torch.device("cuda", processes.gpu)


def hint(processes: Processes, device: torch.device) -> str | None:
    """How to use all GPUs of this machine, where one process has several."""
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if processes.world > 1 or count < 2:
        return None
    return (
        f"1 of {count} GPUs is used; all of them: torchrun --nproc-per-node {count} -m byol ... "
        "with the same arguments"
    )


@contextmanager
def start(wants_gpu: bool | None = None) -> Iterator[Processes]:
    """The processes of this run, connected for the length of the context.

    wants_gpu: whether NCCL is needed; None: where CUDA is. A group that the caller has started is
    used and left as it is. Raises UserError where the processes do not find each other, and Lost
    in those that remain when one of them ends.
    """
    here = place()
    if dist.is_initialized():
        here = here._replace(rank=dist.get_rank(), world=dist.get_world_size())
    if here.world == 1:
        yield Processes()
        return
    if dist.is_initialized():
        yield _connected(here)
        return
    store = meet(here, torch.cuda.is_available() if wants_gpu is None else wants_gpu)
    processes = _connected(here)
    try:
        yield processes
    except (Agreed, Interrupted):
        dist.destroy_process_group()
        raise
    except Exception as error:  # this process's own, or another's end that is felt here
        lost = report(error, here.rank, processes.names, store)
        if isinstance(error, UserError):
            error = UserError(f"rank {here.rank} ({processes.names[here.rank]}): {error}")
        raise lost or error from error.__cause__
    dist.destroy_process_group()


def _connected(here: Place) -> Processes:
    control = dist.new_group(backend="gloo", timeout=timedelta(seconds=WORK_SECONDS))
    host = socket.gethostname()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = tuple(str(torch.cuda.get_device_properties(i).uuid) for i in range(count))
    found = Processes(here, control).gather((f"process {os.getpid()} on {host}", host, gpus))
    # Of processes that see the same GPUs the first takes the first, and so on. Launchers show a
    # process all GPUs of its machine, or those of its own alone.
    before = [(other, seen) for _, other, seen in found[: here.rank]].count((host, gpus))
    return Processes(
        here,
        control,
        names=[name for name, _, _ in found],
        local_world=[other for _, other, _ in found].count(host),
        gpu=before if before < count else None,
    )
