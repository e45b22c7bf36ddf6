"""What a process needs to start, and for a step, with ever more images: the index of a set of tar
shards and the order of its images, without the images.

The index is a sparse file of the right size (9000 images a shard), opened and read as a run opens
and reads it, in a process of its own for each size; positions are those of training. How long an
index takes to make is measured on 90 shards of it. Prints a JSON line for each size.

    python benchmarks/billion.py --images 1e6 1e7 1e8 1e9
"""

import argparse
import json
import multiprocessing
import pickle
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from byol.data.loader import positions
from byol.data.shardindex import ENTRY, ShardIndex, build
from byol.data.shards import TarShards
from byol.engine.device import environment

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "billion.json"
IMAGES_A_SHARD = 9000
BATCH, STEPS = 4096, 20


def shard(number: int) -> str:
    """Its name, as long as the path of one in a bucket."""
    return f"s3://bucket/photographs/{number:06d}.tar"


def sparse(path: Path, images: int) -> None:
    """The index of so many images, all of them at the start of the first shard."""
    shards = [shard(i) for i in range(-(-images // IMAGES_A_SHARD))]
    head = {"shards": shards, "classes": None, "count": images, "name_bytes": 0}
    line = json.dumps({**head, "kind": "index of tar shards, 1"}).encode()
    with open(path, "wb") as file:
        file.seek(images * ENTRY.itemsize)
        file.write(line + len(line).to_bytes(8, "little"))


def memory() -> dict[str, float]:
    """MB of this process: its own, and of files that it has mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return {"own": int(found["RssAnon"]) / 1000, "mapped": int(found["RssFile"]) / 1000}


def start_and_step(path: str, images: int) -> dict[str, Any]:
    """Open the index and begin an epoch, then look up where the images of some steps lie."""
    before, began = memory(), time.perf_counter()
    source = TarShards(ShardIndex(path), "the set")
    assert len(source) == images
    source.index.place(images - 1)
    positions(0, images, BATCH, 0)
    opened = time.perf_counter()
    order = 0.0
    for step in range(STEPS):
        since = time.perf_counter()
        _, index = positions(0, images, BATCH, step)
        order += time.perf_counter() - since
        for i in index.tolist():
            source.index.place(i)
    done, after = time.perf_counter(), memory()
    return {
        "images": images,
        "file_gb": Path(path).stat().st_size / 1e9,
        "start_seconds": opened - began,
        "order_ms_a_step": 1000 * order / STEPS,
        "places_ms_a_step": 1000 * (done - opened - order) / STEPS,
        "own_mb": after["own"] - before["own"],
        "mapped_mb": after["mapped"] - before["mapped"],
        "pickled_bytes": len(pickle.dumps(source)),
    }


def making(shards: int = 90) -> dict[str, float]:
    """Seconds and bytes an image of joining the indices of shards that are read already."""
    names = [f"photographs/{i:09d}.jpg" for i in range(IMAGES_A_SHARD)]
    places = np.arange(2 * IMAGES_A_SHARD).reshape(-1, 2).tolist()
    one = {"members": names, "places": places, "labels": [None] * IMAGES_A_SHARD}
    began = time.perf_counter()
    index = build([shard(i) for i in range(shards)], (one for _ in range(shards)))
    seconds, count = time.perf_counter() - began, shards * IMAGES_A_SHARD
    return {"seconds_a_million": 1e6 * seconds / count, "bytes": len(pickle.dumps(index)) / count}


def main() -> None:
    """Each size in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--images", type=float, nargs="+", default=[1e6, 1e7, 1e8, 1e9])
    parser.add_argument("--write", action="store_true", help="write docs/results/billion.json")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for images in map(int, options.images):
            path = Path(scratch, f"{images}.index")
            sparse(path, images)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(start_and_step, (str(path), images)))
            rows[-1] = {k: float(f"{v:.3g}") if v < 1e5 else v for k, v in rows[-1].items()}
            print(json.dumps(rows[-1]), flush=True)
    made = {key: float(f"{value:.3g}") for key, value in making().items()}
    print(json.dumps(made))
    if options.write:
        table = {
            "environment": {k: v for k, v in environment().items() if k != "command"},
            "command": " ".join(["python benchmarks/billion.py", *sys.argv[1:]]),
            "batch": BATCH,
            "making": made,
            "rows": rows,
        }
        RESULTS.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
