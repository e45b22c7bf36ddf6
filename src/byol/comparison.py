"""What evaluations of one or more runs wrote, as one table and one picture."""

import csv
import io
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from byol.collect import MISSING, Column, Row, collect
from byol.engine.files import atomic_write

PANELS = 3  # in a row of the picture
TITLE, LABEL = 40, 26  # letters that fit above a panel, and beside it


def report(runs: Sequence[str | Path], out: str | Path = "report") -> str:
    """`byol evaluate report`: report.md, .csv, .tex and .png in the folder `out`.

    runs: run folders, or folders of PROTOCOL.json files. Returns the Markdown text. Raises
    UserError where no run has an evaluation.
    """
    columns, rows, notes = collect([Path(run) for run in runs])
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    table = _table(columns, rows)
    lines = [_markdown(table), *(f"- {c.title}: {', '.join(map(str, c.runs))}" for c in columns)]
    text = "\n".join([*lines, *(f"- note: {note}" for note in notes)]) + "\n"
    for ending, content in (
        ("md", text + "\n![bars](report.png)\n"),
        ("csv", _csv(columns, rows)),
        ("tex", _latex(table)),
    ):
        atomic_write(folder / f"report.{ending}", content.encode())
    _bars(columns, rows, folder / "report.png")
    return text


def _table(columns: list[Column], rows: list[Row]) -> list[list[str]]:
    """Cells, the heads first. Data are called by their last name where that tells them apart."""
    data = {row.data for row in rows}
    short = {name: Path(name).name or name for name in data}
    if len(set(short.values())) < len(data):
        short = {name: name for name in data}
    head = ["protocol", "data", "metric", "encoder", *(column.title for column in columns)]
    lines = [
        [row.protocol, short[row.data], row.metric, row.encoder, *(c.cell(row) for c in columns)]
        for row in rows
    ]
    return [head, *lines]


def _markdown(table: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in table]
    rule = "|" + " --- |" * 4 + " ---: |" * (len(table[0]) - 4)
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def _latex(table: list[list[str]]) -> str:
    """A tabular without any package."""
    names = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\^{}"}
    signs = {**names, **{sign: f"\\{sign}" for sign in "&%$#_{}"}}
    lines = [
        " & ".join("".join(signs.get(c, c) for c in cell) for cell in line) + r" \\"
        for line in table
    ]
    columns = "l" * 4 + "r" * (len(table[0]) - 4)
    body = "\n".join([r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"])
    return f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n"


def _csv(columns: list[Column], rows: list[Row]) -> str:
    """One line a row and column: mean, spread and number of seeds, empty where missing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*Row._fields, "run", "mean", "deviation", "seeds"])
    for row in rows:
        for column in columns:
            found = column.values.get(row, [])
            mean = statistics.fmean(found) if found else ""
            spread = statistics.stdev(found) if len(found) > 1 else ""
            writer.writerow([*row, column.title, mean, spread, len(found)])
    return text.getvalue()


def _bars(columns: list[Column], rows: list[Row], path: Path) -> None:
    """A panel for each metric, a group of bars for each encoder, a colour for each column."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault(row[:3], []).append(row)
    wide = min(PANELS, len(panels))
    tall = -(-len(panels) // wide)
    size = (1.5 + 4 * wide, 0.6 + 3 * tall)
    figure, grid = plt.subplots(tall, wide, figsize=size, layout="constrained", squeeze=False)
    for axis, ((protocol, data, metric), lines) in zip(grid.flat, panels.items(), strict=False):
        for place, column in enumerate(columns):
            _panel(axis, lines, column, place, len(columns))
        axis.set_xticks(range(len(lines)), [row.encoder for row in lines])
        title = textwrap.fill(f"{protocol}, {Path(data).name or data}", TITLE)
        axis.set_title(title, fontsize="medium")
        axis.set_ylabel(textwrap.fill(metric, LABEL))
    for axis in grid.flat[len(panels) :]:
        axis.set_axis_off()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(columns)))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    plt.close(figure)
    atomic_write(path, picture.getvalue())


def _panel(axis: Any, rows: list[Row], column: Column, place: int, of: int) -> None:
    """The bars of one column in one panel; where there is no number stands the word."""
    width = 0.8 / of
    centres = [i + (place - (of - 1) / 2) * width for i in range(len(rows))]
    found = [column.values.get(row, []) for row in rows]
    means = [statistics.fmean(values) if values else 0 for values in found]
    spreads = [statistics.stdev(values) if len(values) > 1 else 0 for values in found]
    errors = spreads if any(spreads) else None
    axis.bar(centres, means, width, yerr=errors, label=column.title, color=f"C{place}")
    for centre, values in zip(centres, found, strict=True):
        if not values:
            axis.text(centre, 0, MISSING, rotation=90, ha="center", va="bottom", fontsize="small")
