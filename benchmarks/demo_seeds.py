"""The demo on five seeds, each measured on a freshly drawn test set.

Writes docs/results/demo.json; benchmarks/tables.py puts it into docs/results.md.

    python benchmarks/demo_seeds.py
"""

import argparse
import json
import tempfile
from pathlib import Path

import byol
from byol.data.embedded import textures
from byol.engine.device import environment

HOME = Path(__file__).parent.parent / "docs" / "results"


def main() -> None:
    """Train and measure, a row a seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        data = {"train": textures(4000, seed=100), "test": textures(2000, seed=1000 + seed)}
        with tempfile.TemporaryDirectory() as scratch:
            result = byol.pretrain(data, out=Path(scratch, "run"), recipe="demo", seed=seed)
        rows.append({"seed": seed, "test_seed": 1000 + seed, **result})
        machine = {k: v for k, v in environment().items() if k != "command"}
        table = {"environment": machine, "rows": rows}
        (HOME / "demo.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
