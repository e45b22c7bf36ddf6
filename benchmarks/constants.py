"""Constants of benchmarks/scale_model.py as this machine shows them; benchmarks/scaling.py asks."""

import statistics
import tempfile
import time
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from scale_model import Machine

from byol.data.embedded import textures
from byol.data.files import FileLoader
from byol.data.loader import CropSpec
from byol.data.source import open_source

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)  # bytes of an all-reduce
CROPS = (CropSpec(), CropSpec())


def reductions(device: torch.device, repeats: int = 20) -> dict[int, float]:
    """Seconds (lower quartile) of an all-reduce of so many bytes, one after another."""
    found = {}
    for size in SIZES:
        tensor = torch.zeros(size // 4, device=device)
        dist.all_reduce(tensor)
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            dist.all_reduce(tensor)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
        found[size] = statistics.quantiles(times, n=4)[0]
    return found


def reading(size: int) -> float:
    """Seconds in which one reader makes both crops of a JPEG file of twice the side."""
    with tempfile.TemporaryDirectory() as folder:
        for i, picture in enumerate(textures(64, 0)[0]):
            side = 2 * size + i % 2  # not all the same, so that files are read again and again
            Image.fromarray(picture).resize((side, side)).save(f"{folder}/{i}.jpg")
        loader = FileLoader(
            open_source(folder), channels=3, value_range=(0, 255), size=size, crops=CROPS,
            batch_size=32, seed=0,
        )  # fmt: skip
        began = time.perf_counter()
        images = sum(len(batch.index) for batch in loader.batches(0, 4))
        return (time.perf_counter() - began) / images


def fitted(lines: list[dict[str, Any]]) -> Machine:
    """The model's constants from what was measured; the others keep their defaults."""
    found: dict[str, Any] = {}
    for line in lines:
        found |= line.get("constants", {})
    for line in lines:
        if line.get("scaling") == "weak" and line["processes"] == 2:
            found["norms_over_processes"] = line["silent"] / line["alone"] - 1
    times = next(
        (line["reductions"]["2"] for line in lines if "2" in line.get("reductions", {})), {}
    )
    if times:  # 2 h + n / b seconds for two processes
        small, large = (float(times[str(size)]) for size in (SIZES[0], SIZES[-1]))
        found |= {"latency": small / 2, "bandwidth": SIZES[-1] / max(large - small, 1e-9)}
        count = next(line["counted"]["2"] for line in lines if "2" in line.get("counted", {}))
        layers = round((count["reductions"] + 2) / 6)  # 6 L - 2 of them, as in the model
        found |= {"norm_layers": layers, "norm_bytes": count["norm_bytes"]}
    return Machine(**found, straggle=0.0)
