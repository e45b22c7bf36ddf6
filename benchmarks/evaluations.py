"""Every evaluation on real sets: the commands behind the tables of docs/results.md.

    python benchmarks/evaluations.py --scenes runs/scenes    pretrains the run where there is none
    python benchmarks/evaluations.py --cifar runs/cifar-resnet18 --jobs 8 --limit 180
    python benchmarks/evaluations.py cifar-linear --cifar runs/cifar-resnet18     one of them

BYOL_DATA is the folder that holds the sets. Each command is a process of its own; one that fails or
takes too long does not stop the others, and goes on when it is given again. Writes
evaluate-NAME.json and the command's picture NAME.png into docs/results (--results), and all of it
with the logs into one file (--out).
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import NamedTuple

HOME = Path(__file__).parent.parent / "docs" / "results"
PICTURE_BYTES = 150_000
GRACE = 30  # seconds in which a command that was told to stop may save
SCENES = ("photos/train/*/*.jpg", "camvid train", "bccd trainval", "depth train")
PRETRAIN = (
    "--recipe photos-224 --model resnet18 --epochs 75 --batch-size 128 --hidden-size 1024 "
    "--zero-gamma true --predictor-lr 5 --base-lr 1.6 --tau-base 0.96 --evaluations 5"
)
TINY_PRETRAIN = (
    "--recipe photos-224 --model resnet18 --image-size 32 --epochs 1 --batch-size 8 --evaluations 1"
)


class Plan(NamedTuple):
    """One command, and what the paper has for the same protocol on its own data."""

    run: str  # "cifar" or "scenes"
    protocol: str
    data: str
    flags: str = ""
    tiny: str = ""  # flags that come last under --tiny
    paper: dict[str, float] = {}
    paper_data: str = ""
    beside: str = ""  # the command whose encoder has a row as well


RESNET50 = "ImageNet, ResNet-50"
FEW = "--epochs 1 --batch-size 16"
SCRATCH = "cifar-supervised"
PLANS = {
    "cifar-supervised": Plan(
        "cifar", "supervised", "cifar10", "--epochs 5 --batch-size 256 --lr 0.1", FEW
    ),
    "cifar-knn": Plan(
        "cifar", "knn", "cifar10", "--k 200,20 --temperature 0.1,0.07", "--k 5", beside=SCRATCH
    ),
    "cifar-linear": Plan(
        "cifar", "linear", "cifar10", "", "--epochs 2", {"top1": 74.3, "top5": 91.6}, RESNET50,
        SCRATCH,
    ),
    "cifar-semisup": Plan(
        "cifar", "semisup", "cifar10",
        "--fractions 1,10 --epochs 30 --batch-size 128 --lrs 0.05", FEW + " --fractions 20,50",
        {"top1_1%": 53.2, "top5_1%": 78.4, "top1_10%": 68.8, "top5_10%": 89.0}, RESNET50,
    ),
    "cifar-semisup-all": Plan(
        "cifar", "semisup", "cifar10",
        "--fractions 100 --epochs 2 --batch-size 256 --lrs 0.1", FEW,
        {"top1_100%": 77.7, "top5_100%": 93.9}, RESNET50,
    ),
    "cifar-transfer": Plan(
        "cifar", "transfer", "cifar10", "", "", {"top1": 91.3}, "ImageNet to CIFAR-10, ResNet-50",
        SCRATCH,
    ),
    "cifar-finetune": Plan(
        "cifar", "transfer", "cifar10",
        "--mode finetune --steps 500 --batch-size 128 --lrs 0.05 --weight-decays 0",
        "--steps 2 --batch-size 16", {"top1": 97.8}, "ImageNet to CIFAR-10, ResNet-50",
    ),
    "photos-knn": Plan("scenes", "knn", "photos", "", "--k 5"),
    "photos-linear": Plan("scenes", "linear", "photos", "", "--epochs 2"),
    "segment": Plan(
        "scenes", "segment", "camvid", "--crop 241 --batch-size 16 --steps 800 --lr 0.02",
        "--crop 49 --batch-size 2 --steps 2", {"miou": 76.3}, "VOC2012, ResNet-50",
    ),
    "detect": Plan(
        "scenes", "detect", "bccd",
        "--min-side 240 --max-side 320 --anchors 16,32,64,128 --proposals 60 --rois 32 "
        "--roi-size 7 --batch-size 2 --steps 400 --lr 0.01",
        "--min-side 64 --max-side 80 --rois 4 --roi-size 4 --proposals 8 --batch-size 2 --steps 2",
        {"ap50_voc": 77.5}, "VOC2007, ResNet-50",
    ),
    "depth": Plan(
        "scenes", "depth", "depth", "--batch-size 16 --steps 600",
        "--side 60 --width 64 --height 48 --batch-size 2 --steps 2",
        {"pct1": 84.6, "pct2": 96.7, "pct3": 99.1, "rms": 0.541, "rel": 0.129},
        "NYU Depth v2, ResNet-50",
    ),
}  # fmt: skip


def scenes() -> list[Path]:
    """The training images of the photographs and of the three sets that are evaluated on."""
    data = Path(os.environ["BYOL_DATA"])
    photos, *sets = SCENES
    found = sorted(data.glob(photos))
    lists = ("camvid/ImageSets/Segmentation/{}.txt", "bccd/ImageSets/Main/{}.txt", "depth/{}.txt")
    for each, file in zip(sets, lists, strict=True):
        name, split = each.split()
        folder = data / name / ("rgb" if name == "depth" else "JPEGImages")
        found += [
            folder / f"{word}.jpg" for word in (data / file.format(split)).read_text().split()
        ]
    return found


def give(words: list[str], log: Path, limit: float | None) -> tuple[int, float]:
    """Exit code of `byol WORDS` and its seconds; after `limit` seconds it is told to stop."""
    began = time.monotonic()
    with log.open("w") as out:
        command = [sys.executable, "-m", "byol", *words]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            process.terminate()
            out.write(f"stopped after {limit:g} seconds\n")
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait(), round(time.monotonic() - began, 1)


def pretrain(run: Path, options: argparse.Namespace) -> None:
    """The run on photographs and scenes; one that ran out of time still leaves its encoder."""
    run.parent.mkdir(parents=True, exist_ok=True)
    images = scenes()
    listed = run.with_suffix(".txt")
    listed.write_text("".join(f"{path.resolve()}\n" for path in images))
    flags = TINY_PRETRAIN if options.tiny else PRETRAIN
    words = ["pretrain", str(listed), "--out", str(run), "--workers", str(2 * options.workers)]
    code, seconds = give([*words, *flags.split()], run.with_suffix(".log"), options.limit)
    print(f"pretraining: exit code {code}, {seconds} seconds", flush=True)
    if not (run / "encoder.safetensors").exists():
        sys.exit(run.with_suffix(".log").read_text()[-2000:])
    machine = json.loads((run / "environment.json").read_text())
    machine.pop("command", None)
    done = run / "result.json"
    table = {
        "environment": machine,
        "command": f"byol pretrain runs/scenes.txt {flags}",
        "images": len(images),
        "seconds": seconds,
        "result": json.loads(done.read_text()) if done.exists() else None,
    }
    write(options.results / "scenes.json", table)
    for picture in run.glob("curves.png"):
        shrink(picture, options.results / "scenes-curves.png")


def evaluate(name: str, run: Path, options: argparse.Namespace) -> None:
    """Give the command, keep its figures and its picture."""
    plan = PLANS[name]
    out = run / name
    out.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ["BYOL_DATA"], plan.data)
    words = ["evaluate", plan.protocol, str(run), str(data), *shlex.split(plan.flags)]
    words += [*shlex.split(plan.tiny if options.tiny else ""), "--workers", str(options.workers)]
    typed = f"byol evaluate {plan.protocol} runs/{plan.run} $BYOL_DATA/{plan.data} {plan.flags}"
    scratch = run / plan.beside / "supervised"
    if plan.beside and (scratch / "encoder.safetensors").exists():
        words += ["--beside", str(scratch)]
        typed += f" --beside runs/{plan.run}/evaluations/supervised"
    code, seconds = give([*words, "--out", str(out)], out / "log.txt", options.limit)
    print(f"{name}: exit code {code}, {seconds} seconds", flush=True)
    if code:
        return
    written = json.loads((out / f"{plan.protocol}.json").read_text())
    result, machine = written["result"], written["environment"]
    machine.pop("command", None)
    table = {
        "environment": machine,
        "command": " ".join(typed.split()),
        "seconds": seconds,
        "rows": result["rows"],
        "metrics": result["metrics"],
        "paper": plan.paper,
        "paper_data": plan.paper_data,
    }
    write(options.results / f"evaluate-{name}.json", table)
    for picture in out.glob("*.png"):
        shrink(picture, options.results / f"{name}.png")


def write(path: Path, table: dict[str, object]) -> None:
    path.write_text(json.dumps(table, indent=1) + "\n")


def shrink(source: Path, target: Path) -> None:
    """The picture in 256 colours, and smaller until it is below PICTURE_BYTES."""
    from PIL import Image

    picture, share = Image.open(source).convert("RGB"), 1.0
    while True:
        size = (round(picture.width * share), round(picture.height * share))
        picture.resize(size, Image.Resampling.LANCZOS).quantize(256).save(target, optimize=True)
        if target.stat().st_size < PICTURE_BYTES:
            return
        share *= 0.85


def pack(runs: list[Path], names: list[str], options: argparse.Namespace) -> None:
    """One file of the tables, the pictures, and what the runs and commands said of themselves."""
    partial = options.out.with_suffix(".partial")
    kept = [options.results / f"evaluate-{name}.json" for name in names]
    kept += [options.results / f"{name}.png" for name in [*names, "scenes-curves"]]
    kept.append(options.results / "scenes.json")
    with tarfile.open(partial, "w:gz") as tar:
        for file in filter(Path.exists, kept):
            tar.add(file, f"results/{file.name}")
        for run in runs:
            said = [*run.glob("*.json*"), *run.glob("*.yaml"), *run.glob("*/*.json")]
            for file in [*said, *run.glob("*/log.txt"), *run.parent.glob(f"{run.name}.log")]:
                tar.add(file, f"runs/{file.relative_to(run.parent)}")
    partial.replace(options.out)


def main() -> None:
    """Those that are named, or all whose run is given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PLANS))
    parser.add_argument("--cifar", type=Path, help="run on CIFAR-10")
    parser.add_argument("--scenes", type=Path, help="run on photographs and the scenes")
    parser.add_argument("--jobs", type=int, default=1, help="commands at a time")
    parser.add_argument("--workers", type=int, default=0, help="reading processes of each")
    parser.add_argument("--limit", type=float, help="seconds after which a command is stopped")
    parser.add_argument("--results", type=Path, default=HOME, help="folder of the tables")
    parser.add_argument("--out", type=Path, help="a .tar.gz of everything that was written")
    parser.add_argument("--tiny", action="store_true", help="steps that only show that it runs")
    options = parser.parse_args()
    runs = {name: run for name in ("cifar", "scenes") if (run := getattr(options, name))}
    names = [n for n, plan in PLANS.items() if n in (options.names or PLANS) and plan.run in runs]
    if missing := [name for name in options.names if name not in names]:
        parser.error(f"{missing[0]} is no command of the runs given (--cifar, --scenes)")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.jobs)))
    options.results.mkdir(parents=True, exist_ok=True)
    lock, done = Lock(), {name: Event() for name in names}

    def keep() -> None:
        if options.out:
            with lock:
                pack(list(runs.values()), names, options)

    def one(name: str) -> None:
        if first := done.get(PLANS[name].beside):
            first.wait()
        try:
            evaluate(name, runs[PLANS[name].run], options)
        finally:
            done[name].set()
        keep()

    if "scenes" in runs and not (runs["scenes"] / "encoder.safetensors").exists():
        pretrain(runs["scenes"], options)
        keep()
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, names))


if __name__ == "__main__":
    main()
