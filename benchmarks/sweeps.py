"""Small tables for docs/recipes.md: runs that differ in a few options.

    python benchmarks/sweeps.py sizes cifar10/      400, 4,000 and 50,000 images by the rule
    python benchmarks/sweeps.py batches             batch 32 to 512, batch norm and group norm
    python benchmarks/sweeps.py vit cifar10/        a ViT with AdamW

Writes docs/results/NAME.json after each run; benchmarks/tables.py makes the tables.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import byol
from byol.data.source import Subset, open_source
from byol.engine.device import environment

HOME = Path(__file__).parent.parent / "docs" / "results"


def sizes(data: str) -> list[tuple[Any, dict[str, Any]]]:
    """Subsets of a labelled set; the longer ones with fewer epochs than the recipe's, to be done
    in minutes on one core."""
    train, test = open_source(data, "train"), open_source(data, "test")
    queries = Subset(test, np.arange(2000))
    rows = []
    for n, epochs in ((400, None), (4_000, 40), (len(train), 4)):
        options = {"images": n, "batch_size": 64, "epochs": epochs}
        rows.append(({"train": Subset(train, np.arange(n)), "test": queries}, options))
    return rows


def batches() -> list[tuple[Any, dict[str, Any]]]:
    """The demo at other batch sizes, values by the rule."""
    return [
        (None, {"batch_size": size, "norm": norm, "epochs": 20})
        for norm in ("batch", "group")
        for size in (32, 64, 128, 256, 512)
    ]


def vit(data: str) -> list[tuple[Any, dict[str, Any]]]:
    """A ViT with AdamW on 10,000 images at 64 pixels."""
    train, test = open_source(data, "train"), open_source(data, "test")
    splits = {"train": Subset(train, np.arange(10_000)), "test": Subset(test, np.arange(2000))}
    shared = {"model": "vit_tiny_patch16_224", "image_size": 64, "epochs": 6, "batch_size": 128}
    return [(splits, {**shared, "optimizer": "adamw"})]


def main() -> None:
    """Run the named sweep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", choices=["sizes", "batches", "vit"])
    parser.add_argument("data", nargs="?")
    options = parser.parse_args()
    plan = batches() if options.name == "batches" else globals()[options.name](options.data)
    recipe = "demo" if options.name == "batches" else "small-32"
    rows = []
    for data, chosen in plan:
        given = {k: v for k, v in chosen.items() if v is not None and k != "images"}
        if options.name == "sizes":
            given["model"] = "convnet"
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch, "run")
            result = byol.pretrain(
                data, out=out, recipe=recipe, workers=0, final_linear=False, **given
            )
            config = json.loads(json.dumps(_yaml(out / "config.yaml")))
        shown = {**chosen, "epochs": config["optim"]["epochs"]}
        shown |= {"base_lr": config["optim"]["base_lr"], "tau": config["optim"]["tau_base"]}
        rows.append({"options": shown, "result": result})
        machine = {k: v for k, v in environment().items() if k != "command"}
        table = {"environment": machine, "rows": rows}
        (HOME / f"{options.name}.json").write_text(json.dumps(table, indent=1) + "\n")


def _yaml(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text())


if __name__ == "__main__":
    main()
