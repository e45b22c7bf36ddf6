"""Puts the figures of docs/results/*.json into the tables of the documents.

    python -m benchmarks.tables

A table stands between <!-- NAME:begin --> and <!-- NAME:end -->; everything else of a document is
left alone. With --check, only says whether the documents are up to date (exit code 1 if not).
"""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.shown import results, scale, speed

DOCS = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "docs/results.md",
    "docs/recipes.md",
    "docs/scale.md",
    "docs/performance.md",
)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "demo": results.demo,
    "cifar": results.run,
    "cifar-resnet18": results.run,
    "cifar-gpu": results.monitored,
    "photos": results.run,
    "sizes": results.sweep,
    "batches": results.sweep,
    "vit": results.sweep,
    "choices-knn": results.sweep,
    "kill": scale.kill,
    "fault": scale.fault,
    "scaling": scale.scaling,
    "billion": scale.billion,
    "speed/loader": speed.loader,
    "speed/literal": speed.literal,
    "speed/gpu": speed.gpu,
    "speed/gpu#speeds": speed.gpu_speeds,
    "speed/memory-resnet50-2x-224-256-large-bf16": speed.memory,
    "speed/memory-resnet50-224-16-large-fp32": speed.memory,
}
TABLES["scenes"] = results.pretraining
for _name in ("knn", "linear", "supervised", "semisup", "semisup-all", "transfer", "finetune"):
    TABLES[f"evaluate-cifar-{_name}"] = results.evaluation
for _name in ("photos-knn", "photos-linear", "segment", "detect", "depth"):
    TABLES[f"evaluate-{_name}"] = results.evaluation


def made() -> dict[str, Callable[[dict[str, Any]], str]]:
    """The function of each table, those of all published timings included."""
    timings = sorted((DOCS / "docs" / "results" / "speed").glob("*.json"))
    return {f"speed/{file.stem}": speed.speed for file in timings} | TABLES


def _between(content: str, found: re.Match[str]) -> str:
    return f"{found[1]}{content}\n{found[2]}"


def filled(text: str) -> str:
    """The document with every table made anew."""
    for name, make in made().items():
        source = DOCS / "docs" / "results" / f"{name.partition('#')[0]}.json"
        mark = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if source.exists() and mark.search(text):
            content = make(json.loads(source.read_text()))
            text = mark.sub(partial(_between, content), text)
    return text


def main() -> int:
    """Write the documents, or with --check compare them."""
    stale = []
    for name in DOCUMENTS:
        path = DOCS / name
        if path.exists() and filled(path.read_text()) != path.read_text():
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(filled(path.read_text()))
    if "--check" in sys.argv and stale:
        print(f"not up to date: {', '.join(stale)}; run python -m benchmarks.tables")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
