"""The ablations of docs/ablations.md: six tables on the drawn textures, a small base.

    python benchmarks/ablations.py                     run all (resumes), and fill the document
    python benchmarks/ablations.py table5a --seeds 3   one of them
    python benchmarks/ablations.py --add runs/cifar augmentations-cifar10
                                                       a folder of `byol ablate`, under a name
    python benchmarks/ablations.py --fill              the document alone, from docs/ablations/
    python benchmarks/ablations.py --check             is it up to date? (exit code 1 if not)

docs/ablations/NAME.json holds a table's numbers; its text stands between <!-- NAME:begin --> and
<!-- NAME:end -->.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from byol.lab.table import markdown, read_plan

DOCS = Path(__file__).parent.parent / "docs"
HOME, DOCUMENT = DOCS / "ablations", DOCS / "ablations.md"
TABLES = (
    "table5a",
    "table5b",
    "augmentations",
    "loss-normalisation",
    "without-batch-statistics",
    "relatives",
)
# Chosen so that a run takes 45 seconds of one core and BYOL clearly learns.
BASE: dict[str, Any] = {
    "recipe": "demo",
    "model": "convnet-8",
    "epochs": 12,
    "evaluations": 5,
    "final_linear": False,
    "workers": 0,
}


def run(names: list[str], seeds: int, jobs: int, out: Path) -> None:
    """Run tables one after the other and keep the numbers of each as soon as it is done."""
    from byol.lab.run import ablate

    flags = " ".join(f"--{k.replace('_', '-')} {str(v).lower()}" for k, v in BASE.items())
    for name in names:
        ablate(name, "textures", out / name, seeds=seeds, jobs=jobs, **BASE)
        add(out / name, name, f"byol ablate {name} textures --seeds {seeds} --jobs {jobs} {flags}")


def add(folder: Path, name: str, command: str = "") -> None:
    """Take over what a table's folder holds, and fill the document."""
    _, runs = read_plan(folder)
    folders = [folder / path for path in dict.fromkeys(run["folder"] for run in runs)]
    done = [path for path in folders if (path / "result.json").exists()]
    if not done:
        raise SystemExit(f"{folder} holds no finished run")
    results = [json.loads((path / "result.json").read_text()) for path in done]
    environment = json.loads((done[0] / "environment.json").read_text())
    environment.pop("command", None)
    record = {
        "command": command or runs[0]["command"],
        "environment": environment,
        "runs": len(folders),
        "seconds": fmean(result["seconds"] for result in results),
        "cpu_seconds": fmean(result["cpu_seconds"] for result in results),
        "summary": json.loads((folder / "table.json").read_text()),
    }
    HOME.mkdir(exist_ok=True)
    (HOME / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    shutil.copy(folder / "picture.png", HOME / f"{name}.png")
    shutil.copy(folder / "curves.png", HOME / f"{name}-projections.png")
    DOCUMENT.write_text(filled(DOCUMENT.read_text()))


def shown(name: str, record: dict[str, Any]) -> str:
    """A table, how it was made, and its pictures."""
    e = record["environment"]
    where = f"{e['cpu']}, {e['threads']} threads a run, torch {e['packages']['torch']}"
    cost = (
        f"{record['runs']} runs of {record['seconds']:.0f} seconds each "
        f"({record['cpu_seconds']:.0f} of processor time)"
    )
    pictures = (
        f"![Differences to the baseline, ours and the paper's](ablations/{name}.png)\n\n"
        f"![Projections of every row](ablations/{name}-projections.png)"
    )
    made = f"`{record['command']}`\n\n{cost}; {where}."
    return f"{markdown(record['summary'])}\n{made}\n\n{pictures}"


def filled(text: str) -> str:
    """The document with every table made anew; one without numbers says so."""

    def content(found: re.Match[str]) -> str:
        source = HOME / f"{found[1]}.json"
        table = "Not run yet."
        if source.exists():
            table = shown(found[1], json.loads(source.read_text()))
        return f"<!-- {found[1]}:begin -->\n{table}\n<!-- {found[1]}:end -->"

    return re.sub(r"<!-- ([\w-]+):begin -->\n.*?<!-- \1:end -->", content, text, flags=re.DOTALL)


def main() -> int:
    """Run, add, fill or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(TABLES)} (all)")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--add", nargs=2, metavar=("FOLDER", "NAME"))
    parser.add_argument("--command", default="", help="with --add: what made the folder")
    parser.add_argument("--fill", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        if filled(DOCUMENT.read_text()) != DOCUMENT.read_text():
            print("not up to date: docs/ablations.md; run python benchmarks/ablations.py --fill")
            return 1
    elif options.add:
        add(Path(options.add[0]), options.add[1], options.command)
    elif options.fill:
        DOCUMENT.write_text(filled(DOCUMENT.read_text()))
    else:
        run(options.names or list(TABLES), options.seeds, options.jobs, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
