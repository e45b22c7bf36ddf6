"""Two run folders beside each other: what differs in their configurations, results, curves."""

import json
from pathlib import Path
from typing import Any

import yaml

from byol.errors import UserError
from byol.options import flat
from byol.report import read_metrics

PANELS = ("loss", "knn", "projection_deviation", "projection_cosine")


def compare(run_a: str | Path, run_b: str | Path, out: str | Path = "compare.png") -> str:
    """The command `byol compare`: writes the curves of both runs as one picture, and returns the
    differing options and the results as a text table. Raises UserError for what is no run."""
    runs = [Path(run_a), Path(run_b)]
    configs = [flat(_read(run)) for run in runs]
    results = [flat(_result(run)) for run in runs]
    keys = dict.fromkeys([*configs[0], *configs[1]])
    options = [key for key in keys if configs[0].get(key) != configs[1].get(key)]
    figures = [
        key
        for key in dict.fromkeys([*results[0], *results[1]])
        if all(isinstance(r.get(key), int | float | str | None) for r in results)
        and not key.endswith("reason")
    ]
    lines = [["", str(runs[0]), str(runs[1])]]
    lines += [[key, *(_text(config.get(key)) for config in configs)] for key in options]
    lines += [[key, *(_text(result.get(key)) for result in results)] for key in figures]
    _draw(runs, Path(out))
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    table = ["  ".join(t.ljust(w) for t, w in zip(x, widths, strict=True)).rstrip() for x in lines]
    table.insert(1 + len(options), "-" * (sum(widths) + 4))
    return "\n".join([*table, "", f"curves in {out}"])


def _read(run: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    except OSError as error:
        raise UserError(f"{run} holds no config.yaml, so it is no run folder") from error
    return config


def _result(run: Path) -> dict[str, Any]:
    """result.json; empty for a run that is not finished."""
    path = run / "result.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)


def _draw(runs: list[Path], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 3.4), layout="constrained")
    for run in runs:
        lines = read_metrics(run) if (run / "metrics.jsonl").exists() else []
        for axis, name in zip(axes, PANELS, strict=True):
            points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
            points = points or [(0, float("nan"))]  # an empty line keeps its place in the legend
            axis.plot(*zip(*points, strict=True), label=str(run))
    for axis, name in zip(axes, PANELS, strict=True):
        axis.set_title(name.replace("_", " "))
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize=8, loc="upper right")
    figure.savefig(path, dpi=110)
    plt.close(figure)
