"""Where the environment of torchrun or of SLURM's srun puts a process, and where all meet."""

import os
import re
from typing import NamedTuple

from byol.errors import UserError


class Place(NamedTuple):
    """Where a process stands among how many."""

    rank: int = 0
    world: int = 1


def place() -> Place:
    """Where torchrun's or srun's environment puts this process; alone without either.

    A script of sbatch has SLURM_PROCID too, but only srun starts several: it alone gives
    SLURM_STEP_NUM_TASKS.
    """
    there = os.environ
    names = ("RANK", "WORLD_SIZE")
    if not all(name in there for name in names):
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
        if not all(there.get(name) for name in names):
            return Place()
    try:
        return Place(*(int(there[name]) for name in names))
    except ValueError:
        raise UserError(
            f"{', '.join(f'{name}={there[name]}' for name in names)} are not whole numbers: start "
            "the processes with torchrun or srun"
        ) from None


def meeting_point() -> None:
    """srun names no address: the step's first machine, and a port that follows from the job."""
    there = os.environ
    if "MASTER_ADDR" not in there:
        nodes = there.get("SLURM_STEP_NODELIST") or there.get("SLURM_JOB_NODELIST") or "127.0.0.1"
        there["MASTER_ADDR"] = first_node(nodes)
    if "MASTER_PORT" not in there:
        job = re.sub(r"\D", "", there.get("SLURM_JOB_ID", "")) or "0"
        there["MASTER_PORT"] = str(20_000 + int(job) % 20_000)


def first_node(nodes: str) -> str:
    """The first machine of SLURM's short form: "gpu[003-010,020],cpu1" is gpu003."""
    found = re.match(r"([^,\[]*)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes
