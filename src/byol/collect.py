"""The numbers that evaluations wrote into run folders, as rows and columns of one table.

They stand in RUN/evaluations/*.json and RUN/result.json. Runs whose config.yaml differs in the seed
alone are one column: mean and spread (sample standard deviation) over the seeds.
"""

import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from byol.errors import UserError

TITLES = {"top1": "top-1 accuracy in %", "top5": "top-5 accuracy in %"}
SETTINGS = {"lr", "weight_decay", "epochs"}  # chosen for a row, and no measure of it
MISSING = "missing"


class Row(NamedTuple):
    """What a line of the table measures."""

    protocol: str
    data: str
    metric: str
    encoder: str  # "trained", "untrained", ...


@dataclass
class Column:
    """A run, or runs that differ in the seed alone."""

    title: str
    runs: list[Path]
    values: dict[Row, list[float]] = field(default_factory=dict)

    def cell(self, row: Row) -> str:
        """Mean and spread; how many seeds, where some are missing."""
        found = self.values.get(row, [])
        if not found:
            return MISSING
        mean = statistics.fmean(found)
        digits = 2 if abs(mean) >= 1 else 4
        spread = f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else ""
        share = f" ({len(found)} of {len(self.runs)})" if len(found) < len(self.runs) else ""
        return f"{mean:.{digits}f}{spread}{share}"


def collect(runs: list[Path]) -> tuple[list[Column], list[Row], list[str]]:
    """Columns in the order given, their rows in order of protocol and data, and what to know.

    Raises UserError where a run is no folder, or no run has an evaluation.
    """
    notes: list[str] = []
    same: dict[str, list[Path]] = {}
    for run in dict.fromkeys(runs):
        if not run.is_dir():
            raise UserError(f"{run} is no folder: give run folders, or the --out of byol evaluate")
        same.setdefault(_signature(run), []).append(run)
    names = [run.resolve().name for run in runs]
    columns, every = [], []
    settings: dict[str, dict[str, set[str]]] = {}
    for group in same.values():
        column = Column(_title(group, names), group)
        for run in group:
            for row, value in _read(run, settings, notes).items():
                column.values.setdefault(row, []).append(value)
                every.append(row)
        columns.append(column)
    if not every:
        few = ", ".join(map(str, runs[:3]))
        raise UserError(f"no evaluation in {few}: measure first, byol evaluate knn RUN DATA")
    for what, options in settings.items():
        for name, values in options.items():
            if len(values) > 1:
                notes.append(
                    f"{what} was measured with different {name}: {', '.join(sorted(values))}"
                )
    return columns, sorted(dict.fromkeys(every), key=lambda row: (row.protocol, row.data)), notes


def _signature(run: Path) -> str:
    """The configuration without its seed; a folder without one stands alone."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
        return json.dumps({**config, "train": {**config["train"], "seed": None}}, sort_keys=True)
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return str(run.resolve())


def _title(group: list[Path], names: list[str]) -> str:
    own = [run.resolve().name for run in group]
    if len(own) == 1:
        return own[0] if names.count(own[0]) == 1 else str(group[0])
    stem = os.path.commonprefix(own).rstrip("-_. ").removesuffix("seed").rstrip("-_. ")
    return f"{stem or own[0]} ({len(own)} seeds)"


def _read(
    run: Path, settings: dict[str, dict[str, set[str]]], notes: list[str]
) -> dict[Row, float]:
    """All numbers of a run; the options of each measurement are added to `settings`."""
    found: dict[Row, float] = {}
    folder = run / "evaluations" if (run / "evaluations").is_dir() else run
    for path in [*sorted(folder.glob("*.json")), run / "result.json"]:
        try:
            written = json.loads(path.read_text())
            if path == run / "result.json":
                found |= _of_result(written)
            elif "protocol" in written:
                found |= _of_protocol(written)
                what = f"{written['protocol']} on {written['data']}"
                for name, value in written["options"].items():
                    if name != "seed":
                        options = settings.setdefault(what, {})
                        options.setdefault(name, set()).add(json.dumps(value))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            notes.append(f"{path} was left out, as it cannot be read ({error!r})")
    return found


def _of_protocol(written: Mapping[str, Any]) -> dict[Row, float]:
    """The rows of a PROTOCOL.json; results of one row are plain numbers."""
    result = written["result"]
    rows = result.get("rows", {"trained": result})
    titles = result.get("metrics", TITLES)
    return {
        Row(written["protocol"], str(written["data"]), title, encoder.replace("_", " ")): row[key]
        for key, title in titles.items()
        if key not in SETTINGS
        for encoder, row in rows.items()
        if _is_number(row.get(key))
    }


def _of_result(result: Mapping[str, Any]) -> dict[Row, float]:
    """kNN and linear probe that pretraining ends with."""
    return {
        Row(f"{kind}, end of training", "its own", TITLES["top1"], encoder.replace("_", " ")): value
        for kind in ("knn", "linear")
        for encoder, value in result.get(kind, {}).items()
        if _is_number(value)
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
