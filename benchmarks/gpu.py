"""Images/s and model-FLOPs utilisation of whole training steps on one GPU, and where time goes.

    python -m benchmarks.gpu [--modes eager compiled] [--lightly] [--cases resnet50-memory ...]
    python -m benchmarks.gpu --tiny          # a few small images, on whatever there is

From memory: decoded uint8 images lie on the device; from files: JPEG of 500 x 375 and 100 KB, by
16 workers. An image means one image with both its views. Its model FLOPs are those of the products
of the online network (forward, and twice that backward) and of the target (forward), both views.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ours, pictures
from benchmarks.peers import Elsewhere, workers
from benchmarks.step import our_step
from benchmarks.timing import HOME
from byol.build import build_learner
from byol.config import Config
from byol.data.files import FileLoader
from byol.data.loader import Batch, ResidentLoader
from byol.data.source import open_source
from byol.engine.device import cores, environment, make_deterministic, pick_device
from byol.engine.gradients import views_of
from byol.engine.processes import ALONE
from byol.engine.step import Step
from byol.engine.upcoming import Upcoming
from byol.learner import Byol
from byol.options import with_options

# Dense bf16, in FLOP/s, as the makers publish them.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}


class Case(NamedTuple):
    model: str
    size: int
    batch: int
    stem: str
    files: bool
    checkpointing: bool = False


CASES = {
    "resnet50-memory": Case("resnet50", 224, 256, "large", False),
    "resnet50-files": Case("resnet50", 224, 256, "large", True),
    "resnet18-32": Case("resnet18", 32, 1024, "small", False),
    "resnet18-32-b256": Case("resnet18", 32, 256, "small", False),
    "vit-s16-files": Case("vit_small_patch16_224", 224, 256, "large", True),
    "resnet50-2x-checkpointing": Case("resnet50-2x", 224, 256, "large", False, True),
}
MODES = ("eager", "compiled")


def flops(learner: Byol, size: int, device: torch.device) -> float:
    """Of one image in a step: 2 views x (3 x online + target), from one forward each."""
    view = torch.rand(2, 3, size, size, device=device)

    def count(*modules: Any) -> float:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            x = view
            for module in modules:
                x = module(x)
        return counter.get_total_flops() / len(view)

    online = count(learner.encoder, learner.projector, learner.predictor)
    return 2 * (3 * online + count(learner.target_encoder, learner.target_projector))


def loader(case: Case, config: Config, folder: Path, device: torch.device, tiny: bool) -> Any:
    """Images in the memory of the device, or files."""
    common: dict[str, Any] = {
        "size": case.size, "crops": (ours.crop_of(config.view1), ours.crop_of(config.view2)),
        "batch_size": config.optim.batch_size, "seed": 0,
    }  # fmt: skip
    if case.files:
        folder.mkdir(exist_ok=True)
        if not any(folder.iterdir()):
            pictures.photographs(folder, 8 if tiny else 512)
        workers_ = 0 if tiny else min(16, cores())
        return FileLoader(
            open_source(str(folder)), channels=3, value_range=(0, 255), workers=workers_,
            device=device, **common,
        )  # fmt: skip
    side = case.size if case.size <= 64 else case.size * 256 // 224
    shape = (8 if tiny else 4096, 3, side, side)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.zeros(len(images), dtype=torch.int64, device=device)
    return ResidentLoader(images, labels, **common)


class Steps:
    """Steps as the loop takes them, one a call."""

    def __init__(
        self, training: Step, batches: Iterator[Batch], config: Config, device: torch.device
    ) -> None:
        self.training, self.device = training, device
        self.upcoming = Upcoming(batches, lambda batch: views_of(config, batch, device))

    def __call__(self) -> float:
        """One step; the seconds that it waited for data."""
        _, views = self.upcoming.take()
        found = self.training.gradients(views)
        self.upcoming.fetch()
        _, tau = self.training.rates(100)
        if ALONE.any([found.is_bad])[0]:
            raise RuntimeError("a step is not finite")
        self.training.update(found, tau)
        return self.upcoming.waited


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def kernels(step: Steps, device: torch.device) -> list[dict[str, Any]]:
    """The ten that take most of two steps."""
    on_device = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    with profile(activities=kinds) as recorded:
        for _ in range(2):
            step()
        synchronise(device)
    name = "self_device_time_total" if on_device else "self_cpu_time_total"
    kind = torch.autograd.DeviceType.CUDA if on_device else torch.autograd.DeviceType.CPU
    of_kind = [
        e for e in recorded.key_averages() if e.device_type == kind
    ]  # no op beside its kernel
    found = [(float(getattr(e, name)), e.key) for e in of_kind]
    return [{"kernel": key[:100], "ms": t / 2000} for t, key in sorted(found, reverse=True)[:10]]


def measure(name: str, mode: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """images/s, utilisation, waiting share, peak memory and kernels of a case."""
    case, device = CASES[name], pick_device(options.device)
    if options.tiny:
        case = case._replace(batch=4, size=224 if case.model.startswith("vit") else 32)
    make_deterministic(False)
    asked = {"compile": mode == "compiled", "device": options.device}
    config = ours.configuration(case.model, case.size, case.batch, "shipped", case.stem)
    config = with_options(config, {**asked, "checkpointing": case.checkpointing})
    learner = build_learner(config).to(device).to(memory_format=torch.channels_last)
    work = flops(learner, case.size, device)
    training = our_step(config, learner, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    batches = loader(case, config, folder, device, options.tiny).batches(0, 10**9)
    step = Steps(training, iter(batches), config, device)
    began = time.perf_counter()
    warm, steps = (1, 2) if options.tiny else (10, options.steps)
    for _ in range(warm):
        step()
    synchronise(device)
    start_up = time.perf_counter() - began
    began, waited = time.perf_counter(), 0.0
    for _ in range(steps):
        waited += step()
    synchronise(device)
    seconds = time.perf_counter() - began
    rate = steps * case.batch / seconds
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak = next((p for key, p in PEAKS.items() if key in device_name), None)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {
        "case": name, "mode": mode, **case._asdict(), "device": device_name, "steps": steps,
        "precision": config.train.precision, "images_per_second": rate,
        "gflops_per_image": work / 1e9, "utilisation": rate * work / peak if peak else None,
        "waiting_share": waited / seconds, "gib": memory, "start_up_seconds": start_up,
        "kernels": kernels(step, device),
    }  # fmt: skip


def lightly(options: argparse.Namespace) -> dict[str, Any]:
    """images/s of lightly's loop on ready views, bf16, as resnet50-memory."""
    case = CASES["resnet50-memory"]
    asked = {"network": case.model, "size": case.size, "batch": case.batch, "setting": "bf16"}
    with workers() as peers:
        step = Elsewhere(peers["lightly"], "step", **asked)
        step(5)
        wall = step(options.steps).wall
    rate = case.batch / wall
    return {"case": "lightly, resnet50, views ready", "mode": "bf16", "images_per_second": rate}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--lightly", action="store_true", help="its loop on the same device too")
    parser.add_argument("--tiny", action="store_true", help="only shows that it runs; not written")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as home:
        for name in options.cases:
            for mode in options.modes:
                rows.append(measure(name, mode, options, Path(home) / "photos"))
                shown = {k: v for k, v in rows[-1].items() if k != "kernels"}
                print(json.dumps(shown), flush=True)
                write(rows, options.tiny)
                torch.cuda.empty_cache()
    if options.lightly:
        rows.append(lightly(options))
        print(json.dumps(rows[-1]), flush=True)
        write(rows, options.tiny)


def write(rows: list[dict[str, Any]], tiny: bool) -> None:
    """The rows so far."""
    command = " ".join(["python -m benchmarks.gpu", *sys.argv[1:]])
    machine = {k: v for k, v in environment().items() if k != "command"}
    result = {"environment": machine, "date": time.strftime("%Y-%m-%d"), "rows": rows}
    target = HOME / "results" / "speed" / "gpu.json"
    if not tiny:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(result | {"command": command}, indent=1) + "\n")


if __name__ == "__main__":
    main()
