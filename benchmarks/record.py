"""Copy a run's figures into docs/results/NAME.json, with the supervised line if there is one.

    python benchmarks/record.py cifar runs/cifar --command 'byol pretrain ...' \
        --supervised runs/cifar/evaluations/supervised.json
"""

import argparse
import json
from pathlib import Path

HOME = Path(__file__).parent.parent / "docs" / "results"


def main() -> None:
    """Read the run folder, write one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    parser.add_argument("--command", required=True, help="as a reader would type it")
    parser.add_argument("--supervised", type=Path, help="what byol evaluate supervised wrote")
    options = parser.parse_args()
    machine = json.loads((options.run / "environment.json").read_text())
    machine.pop("command", None)
    table = {
        "environment": machine,
        "command": options.command,
        "result": json.loads((options.run / "result.json").read_text()),
    }
    if options.supervised:
        found = json.loads(options.supervised.read_text())["result"]
        figures = found["rows"]["supervised"] | {k: found[k] for k in ("epochs", "seconds")}
        keys = ("top1", "knn", "epochs", "seconds")
        table["supervised"] = {k: round(figures[k], 2) for k in keys if figures[k] is not None}
    (HOME / f"{options.name}.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
