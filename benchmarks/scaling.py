"""Weak and strong scaling: seconds a step against the number of processes, the share that
communication takes, and what benchmarks/scale_model.py predicts from constants measured beside it.

Weak: the same images in each process; strong: the same images over all of them. A step is the
loop's own (views, both networks, DDP, norms over all processes, LARS, target). The communication
share is what a step with one process's part of the batch takes longer in company than silent: with
the same arithmetic (norms that span processes are slower than torch's) in as many processes that
exchange nothing, so that neither that nor cores that are shared count. All kinds take turns, and
lower quartiles count: a machine with other work makes some steps longer, none shorter.

    python benchmarks/scaling.py --processes 1 2 4 --model resnet18 --image-size 64 --images 32
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from constants import CROPS, fitted, reading, reductions
from scale_model import Machine, simulate

from byol.build import build_learner
from byol.config import Config
from byol.data.loader import Batch, ResidentLoader
from byol.engine.device import cores, environment
from byol.engine.gradients import gradients, over_processes, views_of
from byol.engine.optimizer import build_optimizer
from byol.engine.processes import ALONE, Processes, pick_device, start
from byol.networks.norm import span_
from byol.options import with_options

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "scaling.json"


class Run:
    """A network over `company`, and its step on random images; silent: it computes what it would
    over several processes, and exchanges nothing."""

    def __init__(
        self,
        config: Config,
        own: int,
        device: torch.device,
        company: Processes,
        silent: bool = False,
    ) -> None:
        self.silent = silent
        self.config, self.own, self.device = config, own, device
        self.learner = build_learner(config).to(device).to(memory_format=torch.channels_last)
        self.network = over_processes(config, self.learner, device, company)
        if silent:
            span_(self.learner, own)
        self.optimizer = build_optimizer(config, self.learner)
        size = config.data.image_size
        images = torch.randint(0, 256, (own, 3, size, size), dtype=torch.uint8, device=device)
        labels = torch.zeros(own, dtype=torch.int64, device=device)
        self.loader = ResidentLoader(images, labels, size=size, crops=CROPS, batch_size=own, seed=0)

    def step(self, batch: Batch) -> None:
        """As engine/fit.py does it, without its looks at what was asked for."""
        said = dist.all_reduce
        if self.silent:
            dist.all_reduce = lambda *_: None
        views = views_of(self.config, batch, self.device)
        gradients(self.config, self.learner, self.network, views)
        dist.all_reduce = said
        self.optimizer.step()
        self.learner.update_target(0.99)
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def alternating(runs: list[Run], steps: int, here: Processes) -> list[list[float]]:
    """Seconds of each run's steps, which all processes begin together and which take turns, so that
    a machine whose speed changes changes it for all; two of each are not counted."""
    found: list[list[float]] = [[] for _ in runs]
    for batches in zip(*(run.loader.batches(0, steps + 2) for run in runs), strict=True):
        for run, batch, times in zip(runs, batches, found, strict=True):
            here.gather(None)
            began = time.perf_counter()
            run.step(batch)
            times.append(time.perf_counter() - began)
    return [times[2:] for times in found]


def undisturbed(times: list[float]) -> float:
    """The lower quartile: what else runs on the machine only adds."""
    return statistics.quantiles(times, n=4)[0]


def spread(times: list[float]) -> float:
    """Deviation of their logarithms, from the quartiles."""
    low, _, high = statistics.quantiles(map(math.log, times), n=4)
    return (high - low) / 1.349


def scaled(
    config: Config, kind: str, options: argparse.Namespace, device: torch.device, here: Processes
) -> dict[str, Any]:
    """One line of the table, and on one process the constants of the network."""
    own = options.images // (1 if kind == "weak" else here.world)
    config = with_options(config, {"batch_size": own * here.world})
    runs = [Run(config, own, device, company) for company in (here, ALONE)]
    if here.world > 1 and device.type == "cpu":  # where torch's norms are replaced by others
        runs.append(Run(config, own, device, ALONE, silent=True))
    times = alternating(runs, options.steps, here)
    slowest = [max(each) for each in zip(*here.gather(list(map(undisturbed, times))), strict=True)]
    whole, alone, silent = slowest[0], slowest[1], slowest[-1]
    row = {
        "scaling": kind,
        "processes": here.world,
        "images_each": own,
        "seconds": whole,
        "alone": alone,
        "silent": silent,
        "communication": max(0.0, 1 - silent / whole),
    }
    if here.world == 1 and kind == "weak":
        weights = [w for w in runs[1].learner.parameters() if w.requires_grad]
        row["constants"] = {
            "compute": alone / own,
            "noise": spread(times[1]),
            "gradient_bytes": float(sum(w.numel() * w.element_size() for w in weights)),
        }
    return row


def counted(config: Config, own: int, device: torch.device, here: Processes) -> dict[str, float]:
    """Reductions of norm statistics in a step, and their mean bytes."""
    run = Run(with_options(config, {"batch_size": own * here.world}), own, device, here)
    sizes: list[int] = []
    reduce = dist.all_reduce

    def counting(tensor: torch.Tensor, *rest: Any, **more: Any) -> Any:
        sizes.append(tensor.numel() * tensor.element_size())
        return reduce(tensor, *rest, **more)

    dist.all_reduce = counting  # DDP's own do not pass through here
    run.step(next(run.loader.batches(0, 1)))
    dist.all_reduce = reduce
    return {"reductions": len(sizes), "norm_bytes": statistics.mean(sizes)}


def measure(options: argparse.Namespace) -> None:
    """What one process does under torchrun; the first prints lines of JSON."""
    size = options.image_size
    values = {
        "model": options.model, "image_size": size, "channels": 3, "mean": (0.5,) * 3,
        "std": (0.25,) * 3, "precision": "fp32",
    }  # fmt: skip
    config = with_options(Config(), values)
    with start() as here:
        device = pick_device(options.device, here)
        lines: list[Any] = [
            scaled(config, kind, options, device, here) for kind in ("weak", "strong")
        ]
        if here.world == 1:
            lines.append({"constants": {"reading": reading(size)}})
        else:
            lines.append({"reductions": {here.world: reductions(device)}})
            lines.append({"counted": {here.world: counted(config, 4, device, here)}})
        if here.is_main:
            print(*map(json.dumps, lines), sep="\n", flush=True)


def predicted(machine: Machine, row: dict[str, Any]) -> dict[str, float]:
    """Seconds of a step and communication share; processes that share a core take turns."""
    world = row["processes"]
    turns = max(1.0, world / (torch.cuda.device_count() or cores()))
    own = replace(machine, compute=machine.compute * turns)
    model = simulate(own, world, row["images_each"] * world, steps=300)
    share = (model["norm_statistics"] + model["gradients"]) / model["step"]
    return {"predicted_seconds": model["step"], "predicted_communication": share}


def launch(count: int) -> list[dict[str, Any]]:
    """The lines of `count` processes under a torchrun of their own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(count), __file__, *sys.argv[1:], "--one"]
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    done = subprocess.run(
        command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def short(value: Any) -> Any:
    """Four digits of every number."""
    if isinstance(value, dict):
        return {key: short(each) for key, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> int:
    """Each number of processes, then the model from the constants of all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=32, help="in each process; strong: in all")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write", action="store_true", help="write docs/results/scaling.json")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options)
        return 0
    load = os.getloadavg()[0]  # of what else the machine does
    lines = [line for count in options.processes for line in launch(count)]
    machine = fitted(lines)
    rows = [{**row, **predicted(machine, row)} for row in lines if "scaling" in row]
    for row in rows:
        row.pop("constants", None)
        print(json.dumps(short(row)))
    measured = [line for line in lines if "scaling" not in line and "constants" not in line]
    table = {
        "environment": {k: v for k, v in environment().items() if k != "command"},
        "command": " ".join(["python benchmarks/scaling.py", *sys.argv[1:]]),
        "load": load,
        "constants": short(vars(machine)),
        "measured": [short(line) for line in measured],
        "rows": [short(row) for row in rows],
    }
    print(json.dumps({"constants": table["constants"], "measured": table["measured"]}))
    if options.write:
        RESULTS.write_text(json.dumps(table, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
