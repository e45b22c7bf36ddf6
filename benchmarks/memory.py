"""What a training step holds at its peak, with and without activation checkpointing.

    python -m benchmarks.memory [--model resnet50-2x --size 224 --batch 256 --precision bf16]
    python -m benchmarks.memory --model resnet18 --size 32 --batch 256 --run
    python -m benchmarks.memory --model resnet50 --batch 16 --precision fp32 --peers

Every tensor that a step makes is counted from its first use until it is freed; the arithmetic
itself is left out (fake tensors), so that a network needs no machine that holds it. With --run the
steps are run in processes of their own and their resident memory is read, too, interpreter and
libraries included; with --peers also that of the other packages, which run as many steps.
"""

import argparse
import json
import resource
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.peers import Elsewhere, PeerError, workers
from benchmarks.step import configuration, prepare
from benchmarks.timing import HOME
from byol.build import build_learner
from byol.config import Config
from byol.engine.device import environment
from byol.engine.gradients import gradients, over_processes
from byol.engine.memory import keep_freed
from byol.engine.optimizer import build_optimizer
from byol.engine.processes import ALONE


class Counted(TorchDispatchMode):
    """Bytes of all tensors made under it that are alive, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        weakref.finalize(storage, self._free, key, size)
        self.now += size
        self.most = max(self.most, self.now)

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def two_steps(config: Config) -> None:
    """Networks, optimizer and two steps on drawn views; the second one has momentum."""
    device, size = torch.device("cpu"), config.data.image_size
    learner = build_learner(config)  # the memory format changes no size
    network = over_processes(config, learner, device, ALONE)
    optimizer = build_optimizer(config, learner)
    for _ in range(2):
        view1, view2 = (torch.rand(config.optim.batch_size, 3, size, size) for _ in range(2))
        labels = torch.zeros(config.optim.batch_size, dtype=torch.long)
        gradients(config, learner, network, [(view1, view2, labels)])
        optimizer.step()
        learner.update_target(0.99)
        optimizer.zero_grad(set_to_none=True)


def counted(config: Config) -> float:
    """GB at the peak of two steps that are not computed."""
    with FakeTensorMode(), Counted() as memory:
        two_steps(config)
    return memory.most / 1e9


def resident(arguments: Sequence[str]) -> float:
    """GB that a process holds at most which runs two steps as the loop does."""
    command = [sys.executable, "-m", "benchmarks.memory", *arguments, "--inside"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _inside(config: Config) -> float:
    keep_freed()
    step, _ = prepare(config, torch.device("cpu"), with_floor=False)
    step()
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def of_peers(network: str, size: int, batch: int, setting: str) -> dict[str, dict[str, float]]:
    """The same of each peer; one that cannot do the step is left out."""
    rows = {}
    with workers() as peers:
        for name, worker in peers.items():
            options = {"network": network, "size": size, "batch": batch, "setting": setting}
            try:
                Elsewhere(worker, "step", **options)(2)
            except PeerError as error:
                print(f"{name} is left out: {error}")
                continue
            rows[name] = {"resident_gb": float(worker.ask(task="memory")["gb"])}
            print(f"{name:14}  resident_gb {rows[name]['resident_gb']:.2f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="resnet50-2x")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--stem", default="large")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--run", action="store_true", help="run the steps, too")
    parser.add_argument("--peers", action="store_true", help="run the other packages, too")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    case = (asked.model, asked.size, asked.batch, asked.stem, asked.precision)
    if asked.inside:
        print(_inside(configuration(*case, asked.checkpointing)))
        return
    rows: dict[str, dict[str, float]] = {}
    for name, flags in (("plain", []), ("checkpointing", ["--checkpointing"])):
        rows[name] = {"counted_gb": counted(configuration(*case, bool(flags)))}
        if asked.run or asked.peers:
            rows[name]["resident_gb"] = resident([*sys.argv[1:], *flags])
        print(f"{name:14}", "  ".join(f"{key} {value:.2f}" for key, value in rows[name].items()))
    if asked.peers:
        rows |= of_peers(asked.model, asked.size, asked.batch, asked.precision)
    what = "-".join(str(part) for part in case)
    target = HOME / "results" / "speed" / f"memory-{what}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    machine = {key: value for key, value in environment().items() if key != "command"}
    command = " ".join(["python -m benchmarks.memory", *sys.argv[1:]])
    table = {"environment": machine, "command": command, "rows": rows}
    target.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
