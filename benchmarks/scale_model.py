"""A model of the seconds a step takes on W workers, simulated from 1 to 4096 of them.

    step = max over workers of (images / W * compute * noise, data reading)
         + norm statistics: (forward 2 views, 2 networks; backward 2 views) per layer, latency-bound
         + gradient all-reduce, less what the backward pass hides of it

A ring all-reduce of n bytes takes 2 (W - 1) / W * n / bandwidth, and a small one 2 log2(W)
latencies. Noise is log-normal, and now and then a worker is slow for a step (a straggler). Failures
come at random in proportion to W; each costs the restart and half a checkpoint interval.

    python benchmarks/scale_model.py                       # the paper's network on a GPU cluster
    python benchmarks/scale_model.py --compute 0.02 ...    # constants of benchmarks/scaling.py
"""

import argparse
import json
import math
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Machine:
    """Constants of a cluster and of a network; the defaults are ResNet-50 at 224 pixels."""

    compute: float = 1 / 1500  # seconds an image: both views, both networks, backward
    norms_over_processes: float = 0.0  # share of the compute that they cost more than norms of one
    backward_share: float = 0.5  # of the compute, over which gradients are hidden
    reading: float = 1 / 3000  # seconds an image for one worker's data readers
    latency: float = 10e-6  # of one hop, seconds
    bandwidth: float = 25e9  # bytes a second of one worker's links
    gradient_bytes: float = 4 * 35e6  # encoder, projector, predictor in float32
    norm_layers: int = 55  # of the online network; the target has one less
    norm_bytes: float = 2 * 8 * 512  # sums and squares in float64, mean over the layers
    noise: float = 0.03  # deviation of the log of a worker's compute time
    straggle: float = 1e-4  # share of a worker's steps that take `slow` times as long
    slow: float = 3.0
    hours_between_failures: float = 50_000  # of one worker
    restart: float = 120.0  # seconds from a failure to the next step
    save: float = 2.0  # seconds that a checkpoint costs


def small_reduction(machine: Machine, workers: int) -> float:
    """Seconds of the all-reduce of one norm layer's statistics."""
    if workers == 1:
        return 0.0
    sent = 2 * (workers - 1) / workers * machine.norm_bytes / machine.bandwidth
    return 2 * math.log2(workers) * machine.latency + sent


def communication(machine: Machine, workers: int, compute: float) -> tuple[float, float]:
    """Seconds of norm statistics, and of gradients that the backward pass does not hide."""
    online, target = machine.norm_layers, machine.norm_layers - 1
    reductions = 2 * online + 2 * target + 2 * online  # two views each; the last is the backward's
    norms = reductions * small_reduction(machine, workers)
    ring = 2 * (workers - 1) / workers * machine.gradient_bytes / machine.bandwidth
    ring += 2 * math.log2(workers) * machine.latency
    return norms, max(ring - machine.backward_share * compute, 0.1 * ring)


def simulate(
    machine: Machine, workers: int, batch: int, steps: int, seed: int = 0
) -> dict[str, float]:
    """Means over simulated steps, in seconds, and the share of time that failures leave."""
    draw = np.random.default_rng((seed, workers))
    own = batch / workers
    busy = own * machine.compute * (1 + (machine.norms_over_processes if workers > 1 else 0))
    compute = busy * draw.lognormal(0, machine.noise, (steps, workers))
    compute *= np.where(draw.random((steps, workers)) < machine.straggle, machine.slow, 1)
    slowest = np.maximum(compute, own * machine.reading).max(1)  # (steps,)
    norms, gradients = communication(machine, workers, busy)
    between = machine.hours_between_failures * 3600 / workers
    interval = math.sqrt(2 * machine.save * between)  # Young's
    lost = machine.save / interval + (machine.restart + interval / 2) / between
    step = float(slowest.mean()) + norms + gradients
    return {
        "workers": workers,
        "images_each": own,
        "step": step,
        "compute": busy,
        "waiting_for_stragglers": float(slowest.mean()) - busy,
        "norm_statistics": norms,
        "gradients": gradients,
        "images_a_second": batch / step * (1 - lost),
        "save_every": interval,
        "lost_to_failures": lost,
    }


def main() -> None:
    """A JSON line for the machine, then one for each number of workers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--weak", type=int, help="images each instead: the batch grows with W")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--most", type=int, default=4096, help="workers")
    for name, value in asdict(Machine()).items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    options = vars(parser.parse_args())
    machine = Machine(**{name: options[name] for name in asdict(Machine())})
    print(json.dumps(asdict(machine)))
    workers = 1
    while workers <= options["most"]:
        batch = options["weak"] * workers if options["weak"] else options["batch_size"]
        row = simulate(machine, workers, batch, options["steps"])
        print(json.dumps({name: float(f"{value:.4g}") for name, value in row.items()}))
        workers *= 2


if __name__ == "__main__":
    main()
