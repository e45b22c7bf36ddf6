"""Run a function in several processes that know each other as torchrun's do."""

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

# One interpreter imports everything once; each process is a copy of it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["byol.api", "torch.distributed.optim"])
LIMIT = 1800  # seconds, for a machine that has much else to do


def several(world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """work(*arguments) in `world` processes; what it returns in each, an exception as itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ends: list[Connection] = []
    processes = []
    for rank in range(world):
        here, there = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=_one, args=(rank, world, port, there, work, arguments))
        process.start()
        there.close()
        ends.append(here)
        processes.append(process)
    try:
        return [_receive(end) for end in ends]
    finally:
        for process in processes:
            process.join(LIMIT)
            process.kill()


def _receive(end: Connection) -> Any:
    if not end.poll(LIMIT):
        raise TimeoutError("a process does not answer")
    try:
        value = pickle.loads(end.recv_bytes())
    except EOFError:
        return None  # it was killed
    if isinstance(value, tuple) and value[0] is AssertionError:
        raise AssertionError(value[1])
    return value


def _one(
    rank: int, world: int, port: int, end: Connection, work: Any, arguments: tuple[Any, ...]
) -> None:
    here = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    os.environ.update({name: str(value) for name, value in here.items()} if world > 1 else {})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    import torch

    torch.set_num_threads(1)
    try:
        _send(end, work(*arguments))
    except AssertionError:
        _send(end, (AssertionError, traceback.format_exc()))
    except Exception as error:
        traceback.print_exc()
        _send(end, error)


def _send(end: Connection, value: Any) -> None:
    end.send_bytes(pickle.dumps(value))  # tensors by value: the process ends before they are read
