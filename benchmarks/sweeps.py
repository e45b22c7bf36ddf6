"""Small tables for docs/recipes.md: runs that differ in a few options, each a process of its own.

    python benchmarks/sweeps.py sizes cifar10/      400, 4,000 and 50,000 images by the rule
    python benchmarks/sweeps.py batches             batch 32 to 512, batch norm and group norm
    python benchmarks/sweeps.py vit cifar10/        a small ViT with AdamW, and with LARS

Writes NAME.json (docs/results/, or --out) anew whenever a run ends, so that what is done by the
time limit is kept; benchmarks/tables.py makes the tables.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import byol
from byol.data.reader import Decoder
from byol.data.resident import load_all
from byol.data.source import Source, Subset, open_source
from byol.engine.device import environment, pick_device
from byol.errors import UserError

HOME = Path(__file__).parent.parent / "docs" / "results"
SHARED: dict[str, Any] = {"workers": 0, "final_linear": False, "mode": "plain"}
Plan = list[tuple[int | None, dict[str, Any], dict[str, Any]]]
# A row: how many training images (None: all), what the table shows, and what all rows share.


def sizes() -> Plan:
    """The recipe as it stands at 400 images; the others shorter, to be done in minutes."""
    shared = {"recipe": "small-32", "model": "convnet"}
    lengths = {400: {}, 4_000: {"epochs": 40}, None: {"epochs": 10}}
    return [(images, length, shared) for images, length in lengths.items()]


def batches() -> Plan:
    """The demo at other batch sizes with LARS, values by the rule."""
    shared = {"recipe": "demo", "optimizer": "lars", "epochs": 10}
    return [
        (None, {"batch_size": size, "norm": norm}, shared)
        for norm in ("batch", "group")
        for size in (32, 64, 128, 256, 512)
    ]


def vit() -> Plan:
    """A ViT of 96 units and 9 blocks at 64 pixels (16 patches): AdamW and LARS by the rule; and the
    plain ConvNet for the same epochs and pixels."""
    shared = {"recipe": "small-32", "image_size": 64, "batch_size": 128, "epochs": 4}
    model = {"model": "test_vit3"}
    return [
        (10_000, {**model, "optimizer": "adamw"}, shared),
        (10_000, {**model, "optimizer": "lars"}, shared),
        (10_000, {"model": "convnet", "optimizer": "lars"}, shared),
    ]


PLANS = {"sizes": sizes, "batches": batches, "vit": vit}


def decoded(source: Source, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images (N, H, W, 3) and their labels: a row reads them several times."""
    found = load_all(Decoder(Subset(source, np.arange(count)), 3, (0, 255), 0))
    if found is None:
        raise UserError("the images of a sweep are all of one size")
    return found[0].permute(0, 2, 3, 1).contiguous().numpy(), found[1].numpy()


def row(options: argparse.Namespace, scratch: Path) -> None:
    """Train and measure one row of the plan; its figures into a file of its own."""
    torch.set_num_threads(1)  # as many rows as cores may run beside it
    images, shown, shared = PLANS[options.name]()[options.row]
    data: Any = None
    if options.name != "batches":
        train, test = open_source(options.data, "train"), open_source(options.data, "test")
        images = min(images or len(train), options.images or len(train))
        data = {"train": decoded(train, images), "test": decoded(test, 2000)}
        if options.name == "sizes":
            shown = {"images": images, **shown}
    given = {k: v for k, v in {**shared, **shown}.items() if k != "images"}
    given |= {"epochs": options.epochs} if options.epochs else {}
    out = scratch / f"run{options.row}"
    result = byol.pretrain(data, out=out, device=options.device, **SHARED, **given)
    optim = yaml.safe_load((out / "config.yaml").read_text())["optim"]
    shown |= {key: optim[key] for key in ("batch_size", "epochs", "base_lr")}
    shown["tau"] = optim["tau_base"]
    machine = {k: v for k, v in environment().items() if k != "command"}
    uses_gpu = pick_device(options.device).type == "cuda"
    machine["devices"] = machine["devices"][:1] if uses_gpu else []
    written = {"environment": machine, "row": {"options": shown, "result": result}}
    (scratch / f"{options.row}.json").write_text(json.dumps(written))


def collect(options: argparse.Namespace, scratch: Path, rows: int) -> None:
    """Write the table of the rows that have ended, in the plan's order."""
    ended = [scratch / f"{i}.json" for i in range(rows)]
    read = [json.loads(file.read_text()) for file in ended if file.exists()]
    if not read:
        return
    data = f" {Path(options.data).name}/" if options.data else ""
    table = {
        "environment": {**read[-1]["environment"], "at_once": options.jobs},
        "command": f"python benchmarks/sweeps.py {options.name}{data}",
        "rows": [found["row"] for found in read],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.json").write_text(json.dumps(table, indent=1) + "\n")


def run(options: argparse.Namespace, scratch: Path) -> int:
    """Start each row, `jobs` at once; how many of them did not end well or in time."""
    rows = len(PLANS[options.name]())
    waiting, running = list(range(rows)), dict[int, subprocess.Popen[bytes]]()
    until = time.monotonic() + 60 * options.minutes
    again = [sys.executable, *sys.argv, "--scratch", str(scratch), "--row"]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    while (waiting or running) and time.monotonic() < until:
        while waiting and len(running) < options.jobs:
            number = waiting.pop(0)
            running[number] = subprocess.Popen([*again, str(number)], env=threads)
        for number in [n for n, process in running.items() if process.poll() is not None]:
            print(f"row {number}: exit code {running.pop(number).returncode}", flush=True)
            collect(options, scratch, rows)
        time.sleep(0.2)
    for process in running.values():
        process.kill()
        process.wait()
    missing = rows - len(list(scratch.glob("*.json")))
    print(f"{rows - missing} of {rows} rows: {options.out / options.name}.json")
    return missing


def main() -> int:
    """Run the named sweep, or as a process of it one row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=PLANS)
    parser.add_argument("data", nargs="?", help="a labelled set of images of 32 pixels")
    parser.add_argument("--jobs", type=int, default=1, help="rows at once, each with one thread")
    parser.add_argument("--minutes", type=float, default=600, help="rows that take longer are left")
    parser.add_argument("--out", type=Path, default=HOME, help="where NAME.json is written")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--epochs", type=float, help="of all rows, to try it out")
    parser.add_argument("--images", type=int, help="at most, to try it out")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.name != "batches" and not options.data:
        parser.error(f"{options.name} needs the folder of a labelled set")
    if options.row is not None:
        row(options, options.scratch)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        return int(run(options, Path(scratch)) > 0)


if __name__ == "__main__":
    sys.exit(main())
