"""Weak and strong scaling: seconds a step against the number of processes, and the share that
communication takes.

Weak: the same images in each process; strong: the same images over all of them. A step is the
loop's own (views, both networks, DDP, norms over all processes, LARS, target). The communication
share is what a step with one process's part of the batch takes longer in company than alone, the
processes being as many in both cases, so that cores that are shared are no communication.

    python benchmarks/scaling.py --processes 1 2 4 --model resnet18 --image-size 64 --images 32
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor

from byol.build import build_learner
from byol.config import Config, with_options
from byol.data.loader import Batch, CropSpec, ResidentLoader
from byol.engine.device import environment
from byol.engine.gradients import forward_backward, over_processes
from byol.engine.optimizer import build_optimizer
from byol.engine.processes import ALONE, Processes, pick_device, start


def seconds_a_step(
    config: Config, own: int, steps: int, device: torch.device, processes: Processes
) -> float:
    """Median over the steps, after two that are not counted."""
    learner = build_learner(config).to(device)
    network = over_processes(config, learner, device, processes)
    optimizer = build_optimizer(config, learner)
    size = config.data.image_size
    images = torch.randint(0, 256, (own, 3, size, size), dtype=torch.uint8, device=device)
    labels = torch.zeros(own, dtype=torch.int64, device=device)
    crops = (CropSpec(), CropSpec())
    loader = ResidentLoader(images, labels, size=size, crops=crops, batch_size=own, seed=0)
    times = []
    for batch in loader.batches(0, steps + 2):
        began = time.perf_counter()
        _step(config, network, learner, optimizer, batch, device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def _step(
    config: Config, network: Any, learner: Any, optimizer: Any, batch: Batch, device: torch.device
) -> Tensor:
    loss, _, _ = forward_backward(config, network, batch, device)
    optimizer.step()
    learner.update_target(0.99)
    optimizer.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return loss


def measure(options: argparse.Namespace) -> None:
    """What one process does under torchrun; the first prints both lines."""
    with start() as processes:
        device = pick_device(options.device, processes)
        for kind in ("weak", "strong"):
            share = 1 if kind == "weak" else processes.world
            own = options.images // share
            values = {
                "model": options.model, "image_size": options.image_size, "channels": 3,
                "mean": (0.5,) * 3, "std": (0.25,) * 3, "precision": "fp32",
                "batch_size": own * processes.world,
            }  # fmt: skip
            config = with_options(Config(), values)
            together = seconds_a_step(config, own, options.steps, device, processes)
            processes.gather(None)
            alone = seconds_a_step(config, own, options.steps, device, ALONE)
            slowest = max(processes.gather(alone))
            row = {
                "scaling": kind,
                "processes": processes.world,
                "images_each": own,
                "seconds_a_step": round(max(processes.gather(together)), 4),
                "without_communication": round(slowest, 4),
                "communication_share": round(max(0.0, 1 - slowest / together), 3),
            }
            if processes.is_main:
                print(json.dumps(row), flush=True)


def main() -> int:
    """Each number of processes under a torchrun of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=32, help="in each process; strong: in all")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options)
        return 0
    print(json.dumps({k: v for k, v in environment().items() if k != "command"}), flush=True)
    for count in options.processes:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*launch, "--nproc-per-node", str(count), __file__, *sys.argv[1:], "--one"]
        if code := subprocess.run(command).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
