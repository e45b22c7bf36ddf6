"""How fast images come, and how long a training step waits for them.

    python -m benchmarks.loader [--seconds 3] [--listed 1300000]

Images/s with both crops from JPEG files against workers, batch size and image size; the share of
its time that a loop waits whose every step takes as long as the workers need for a batch, half as
long, and twice as long; and the seconds until a folder of so many (empty) files in 1,000 classes is
open, the first time and the next.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import pictures
from benchmarks.timing import HOME
from benchmarks.views import CROPS
from byol.data.files import FileLoader
from byol.data.source import open_source
from byol.engine.device import environment

PHOTOS = 64  # different files
CLASSES = 1000
CASES = [  # workers, batch size, image size
    *((workers, 64, 224) for workers in sorted({0, 1, 2, os.cpu_count() or 1})),
    *((2, batch, 224) for batch in (16, 256)),
    *((2, 64, size) for size in (96, 448)),
]
OPENING = (
    "import sys, time; from byol.data.source import open_source; began = time.perf_counter(); "
    "open_source(sys.argv[1]); print(time.perf_counter() - began, time.process_time())"
)


def loader(folder: Path, workers: int, batch: int, size: int) -> FileLoader:
    """Of the photographs in a folder."""
    return FileLoader(
        open_source(str(folder)), channels=3, value_range=(0, 255), size=size, crops=CROPS,
        batch_size=batch, seed=0, workers=workers,
    )  # fmt: skip


def pace(folder: Path, workers: int, batch: int, size: int, seconds: float) -> float:
    """Images a second, once the workers have started and each has delivered."""
    batches = loader(folder, workers, batch, size).batches(0, 10**9)
    for _ in range(2 * workers + 1):
        next(batches)
    began, spent, done = time.perf_counter(), 0.0, 0
    while spent < seconds:
        next(batches)
        done, spent = done + 1, time.perf_counter() - began
    batches.close()  # type: ignore[attr-defined]
    return done * batch / spent


def waiting(folder: Path, workers: int, step: float, seconds: float) -> float:
    """Share of the time that is spent waiting, with `step` seconds of (idle) training a batch."""
    batches = loader(folder, workers, 64, 224).batches(0, 10**9)
    for _ in range(2 * workers + 1):
        next(batches)
    began, waited = time.perf_counter(), 0.0
    while time.perf_counter() - began < seconds:
        time.sleep(step)
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
    batches.close()  # type: ignore[attr-defined]
    return waited / (time.perf_counter() - began)


def opening(files: int) -> dict[str, float]:
    """Seconds to open a folder of so many empty files, each time in a process of its own."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        for number in range(CLASSES):
            home = folder / "set" / f"n{number:08}"
            home.mkdir(parents=True)
            for i in range(files // CLASSES):
                os.close(os.open(home / f"{home.name}_{i}.JPEG", os.O_CREAT | os.O_WRONLY))
        time.sleep(3)  # a folder that was written to just now is read again
        command = [sys.executable, "-c", OPENING, str(folder / "set")]
        where = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        found = []
        for _ in range(2):
            done = subprocess.run(command, env=where, capture_output=True, text=True, check=True)
            found.append([float(number) for number in done.stdout.split()])
        (first, _), (second, cpu) = found
        return {"files": files, "first": first, "second": second, "second_cpu": cpu}
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Tables and docs/results/speed/loader.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--listed", type=int, default=1_300_000, help="files of the opening test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    shares: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures.photographs(folder, PHOTOS)
        for workers, batch, size in CASES:
            speed = pace(folder, workers, batch, size, options.seconds)
            rows.append({"workers": workers, "batch": batch, "size": size, "images": speed})
            print(f"{workers} workers, batch {batch}, {size} pixels: {speed:.0f} images/s")
        need = 64 / next(r["images"] for r in rows if (r["workers"], r["batch"]) == (2, 64))
        for times in (0.5, 1, 2):
            share = waiting(folder, 2, times * need, 2 * options.seconds)
            shares.append({"times": times, "waiting": share})
            print(f"a step of {times} times what a batch takes: {share:.1%} waiting")
    start = opening(options.listed)
    print(f"{options.listed:,} files: {start['first']:.1f} s, then {start['second']:.1f} s")
    table = {
        "environment": {k: v for k, v in environment().items() if k != "command"},
        "command": " ".join(["python -m benchmarks.loader", *sys.argv[1:]]),
        "rows": rows,
        "waiting": shares,
        "opening": start,
    }
    target = HOME / "results" / "speed" / "loader.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
