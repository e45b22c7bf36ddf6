"""Every evaluation on real sets: the commands behind the tables of docs/results.md.

    python benchmarks/evaluations.py --cifar runs/cifar-resnet18 --scenes runs/scenes
    python benchmarks/evaluations.py cifar-linear --cifar runs/cifar-resnet18   one of them

BYOL_DATA is the folder that holds the sets. Writes docs/results/evaluate-NAME.json, and the picture
that a command draws as docs/results/NAME.png, after each; one that was stopped goes on.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).parent.parent / "docs" / "results"


class Plan(NamedTuple):
    """One command, and what the paper has for the same protocol on its own data."""

    run: str  # "cifar" or "scenes"
    protocol: str
    data: str
    flags: str = ""
    paper: dict[str, float] = {}
    paper_data: str = ""


SHORT = "--batch-size 128 --lrs 0.05"
PLANS = {
    "cifar-knn": Plan("cifar", "knn", "cifar10"),
    "cifar-linear": Plan(
        "cifar", "linear", "cifar10", "", {"top1": 74.3, "top5": 91.6}, "ImageNet, ResNet-50"
    ),
    "cifar-semisup": Plan(
        "cifar",
        "semisup",
        "cifar10",
        f"--fractions 1,10 --epochs 30 {SHORT}",
        {"top1_1%": 53.2, "top5_1%": 78.4, "top1_10%": 68.8, "top5_10%": 89.0},
        "ImageNet, ResNet-50",
    ),
    "cifar-semisup-all": Plan(
        "cifar",
        "semisup",
        "cifar10",
        f"--fractions 100 --epochs 3 {SHORT}",
        {"top1_100%": 77.7, "top5_100%": 93.9},
        "ImageNet, ResNet-50",
    ),
    "cifar-transfer": Plan(
        "cifar", "transfer", "cifar10", "", {"top1": 91.3}, "ImageNet to CIFAR-10, ResNet-50"
    ),
    "cifar-finetune": Plan(
        "cifar",
        "transfer",
        "cifar10",
        "--mode finetune --steps 800 --batch-size 128 --lrs 0.05 --weight-decays 0",
        {"top1": 97.8},
        "ImageNet to CIFAR-10, ResNet-50",
    ),
    "segment": Plan(
        "scenes",
        "segment",
        "camvid",
        "--crop 161 --batch-size 8 --steps 400 --lr 0.01",
        {"miou": 76.3},
        "VOC2012, ResNet-50",
    ),
    "detect": Plan(
        "scenes",
        "detect",
        "bccd",
        "--min-side 240 --max-side 320 --anchors 16,32,64,128 --proposals 60 --rois 32 "
        "--roi-size 7 --batch-size 2 --steps 600 --lr 0.01",
        {"ap50_voc": 77.5},
        "VOC2007, ResNet-50",
    ),
    "depth": Plan(
        "scenes",
        "depth",
        "depth",
        "--side 120 --width 152 --height 114 --batch-size 8 --steps 300",
        {"pct1": 84.6, "pct2": 96.7, "pct3": 99.1, "rms": 0.541, "rel": 0.129},
        "NYU Depth v2, ResNet-50",
    ),
}


def evaluate(name: str, run: Path) -> None:
    """Give the command, keep its figures and its picture."""
    plan = PLANS[name]
    data = Path(os.environ["BYOL_DATA"], plan.data)
    out = run / name
    words = ["evaluate", plan.protocol, str(run), str(data), *shlex.split(plan.flags)]
    subprocess.run([sys.executable, "-m", "byol", *words, "--out", str(out)], check=True)
    written = json.loads((out / f"{plan.protocol}.json").read_text())
    result, machine = written["result"], written["environment"]
    machine.pop("command", None)
    typed = f"byol evaluate {plan.protocol} runs/{plan.run} $BYOL_DATA/{plan.data} {plan.flags}"
    table = {
        "environment": machine,
        "command": typed.strip(),
        "rows": result["rows"],
        "metrics": result["metrics"],
        "paper": plan.paper,
        "paper_data": plan.paper_data,
    }
    (HOME / f"evaluate-{name}.json").write_text(json.dumps(table, indent=1) + "\n")
    for picture in out.glob("*.png"):
        shutil.copy(picture, HOME / f"{name}.png")


def main() -> None:
    """Those that are named, or all whose run is given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PLANS))
    parser.add_argument("--cifar", type=Path, help="run on CIFAR-10")
    parser.add_argument("--scenes", type=Path, help="run on photographs and the scenes")
    options = parser.parse_args()
    for name in options.names or PLANS:
        run = getattr(options, PLANS[name].run)
        if run is None and options.names:
            parser.error(f"{name} needs --{PLANS[name].run} RUN")
        if run is not None:
            evaluate(name, run)


if __name__ == "__main__":
    main()
