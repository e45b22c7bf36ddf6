"""Pictures of a table: differences as the paper draws them, and each row's projections."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from byol.lab.table import FIGURES, read_plan

MEASURES = {
    "projection_deviation": "standard deviation",
    "projection_rank": "effective rank",
    "projection_cosine": "mean cosine",
}


def differences(summary: dict[str, Any], path: Path) -> None:
    """Each row's difference to its method's baseline, ours beside the paper's: bars, or curves
    where the rows are values of one factor in order (paper figure 3)."""
    plt = _pyplot()
    methods, rows = list(summary["correlation"]), summary["rows"]
    names = list(dict.fromkeys(row["name"] for row in rows))
    series = [
        (f"{method}, {who}" if len(methods) > 1 else who, method, key, who == "paper")
        for method in methods
        for who, key in (("ours", "difference"), ("paper", "paper_difference"))
    ]
    figure, axis = plt.subplots(figsize=(max(6, 0.62 * len(names) + 2), 5), layout="constrained")
    for i, (label, method, key, is_paper) in enumerate(series):
        mine = {row["name"]: row for row in rows if row["method"] == method}
        at = [k for k, name in enumerate(names) if mine.get(name, {}).get(key) is not None]
        heights = [mine[names[k]][key] for k in at]
        spreads = [0.0 if is_paper else mine[names[k]]["spread"] or 0.0 for k in at]
        colour = f"C{methods.index(method)}"
        if summary["shape"] == "curves":
            style = "--" if is_paper else "-"
            axis.errorbar(at, heights, spreads, fmt=f"o{style}", color=colour, label=label)
            continue
        width = 0.8 / len(series)
        places = [k + (i - (len(series) - 1) / 2) * width for k in at]
        fill = {"color": "none", "edgecolor": colour, "hatch": "///"} if is_paper else {}
        fill = fill or {"color": colour}
        axis.bar(places, heights, width, yerr=None if is_paper else spreads, label=label, **fill)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axis.set_ylabel(f"difference to the baseline in points\n(ours: {FIGURES[summary['figure']]})")
    axis.set_title(summary["table"], loc="left")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=len(series))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def projections(folder: Path, path: Path) -> None:
    """Standard deviation, rank and cosine of the projections over the steps, a line a row (the
    mean of its seeds), dotted where a run's verdict is collapsed; a line of panels a method."""
    plt = _pyplot()
    from matplotlib.ticker import MaxNLocator

    table, runs = read_plan(folder)
    methods = list(dict.fromkeys(row.method for row in table.rows))
    size = (14, max(3.6, 0.24 * len(table.rows) / len(methods) + 0.6) * len(methods))
    figure, axes = plt.subplots(len(methods), 3, figsize=size, squeeze=False, layout="constrained")
    for line, method in zip(axes, methods, strict=True):
        rows = [row for row in table.rows if row.method == method]
        for i, row in enumerate(rows):
            mine = [r for r in runs if (r["row"], r["method"]) == (row.name, method)]
            collapsed = any("collapsed" in _verdict(folder / run["folder"]) for run in mine)
            look = {"color": plt.get_cmap("turbo")(i / max(1, len(rows) - 1))}
            look["linestyle"] = ":" if collapsed else "-"
            for axis, name in zip(line, MEASURES, strict=True):
                points = list(curve(folder, mine, name))
                axis.plot(
                    *(zip(*points, strict=True) if points else ([], [])), **look, label=row.name
                )
        for axis, title in zip(line, MEASURES.values(), strict=True):
            axis.set_title(f"{method}: {title}" if len(methods) > 1 else title)
            axis.set_xlabel("step")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.grid(alpha=0.3)
        line[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _verdict(run: Path) -> str:
    path = run / "result.json"
    return str(json.loads(path.read_text())["collapse"]["verdict"]) if path.exists() else ""


def curve(folder: Path, runs: Sequence[dict[str, Any]], name: str) -> Iterator[tuple[int, float]]:
    """(step, value) of a measurement, the mean over a row's runs; steps that not all have are left
    out."""
    points: dict[int, list[float]] = {}
    for run in runs:
        path = folder / run["folder"] / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        for line in (json.loads(text) for text in lines if text.endswith("}")):
            if line.get(name) is not None:
                points.setdefault(line["step"], []).append(line[name])
    for step, values in sorted(points.items()):
        if len(values) == len(runs):
            yield step, fmean(values)
