"""The result of a table as Markdown, CSV and LaTeX, made from its folder alone.

Our figure is the mean over the seeds, +- half the difference between best and worst (the paper's
own measure of spread, section 5). Rank correlation is Spearman's, over a method's rows that have
both figures.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import correlation, fmean
from typing import Any

import yaml

from byol.errors import UserError
from byol.lab.rows import Row, Table

PLAN = "table.yaml"
FIGURES = {"knn": "kNN", "linear": "linear"}


def read_plan(folder: Path) -> tuple[Table, list[dict[str, Any]]]:
    """The table and the runs that OUT/table.yaml records. Raises UserError where there is none."""
    try:
        content = yaml.safe_load((folder / PLAN).read_text())
    except OSError as error:
        raise UserError(f"{folder} holds no {PLAN}, so it is no folder of byol ablate") from error
    plain = content["table"]
    rows = tuple(Row(**row) for row in plain.pop("rows"))
    return Table(**plain, rows=rows), content["runs"]


def summarise(folder: Path, figure: str | None = None) -> dict[str, Any]:
    """All numbers of a table's folder, finished or not, as plain values.

    figure: "knn" or "linear"; None takes linear where every finished run has it. Raises UserError
    for another one.
    """
    if figure not in (None, *FIGURES):
        raise UserError(f"figure is {figure!r}; it must be {' or '.join(FIGURES)}")
    table, runs = read_plan(folder)
    results = {run["folder"]: _read_json(folder / run["folder"] / "result.json") for run in runs}
    if figure is None:
        finished = [result for result in results.values() if result]
        figure = "linear" if finished and all(r.get("linear") for r in finished) else "knn"
    rows = []
    for row in table.rows:
        mine = [r for r in runs if (r["row"], r["method"]) == (row.name, row.method)]
        rows.append(_line(folder, row, mine, results, figure))
    for line in rows:
        base = table.baseline_of(line["method"])
        start = next((r for r in rows if base and _is(r, base)), {"mean": None, "paper": None})
        line["difference"] = _minus(line["mean"], start["mean"])
        line["paper_difference"] = _minus(line["paper"], start["paper"])
    opponents = [_dig(result, figure, "untrained") for result in results.values()]
    untrained = [value for value in opponents if value is not None]
    return {
        "table": table.name,
        "question": table.question,
        "metric": table.metric,
        "source": table.source,
        "baseline": table.baseline,
        "shape": table.shape,
        "figure": figure,
        "seeds": len({run["seed"] for run in runs}),
        "untrained": fmean(untrained) if untrained else None,
        "correlation": {method: _agreement(rows, method) for method in _methods(rows)},
        "rows": rows,
    }


def _is(line: dict[str, Any], row: Row) -> bool:
    return bool((line["name"], line["method"]) == (row.name, row.method))


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _dig(result: dict[str, Any] | None, *keys: str) -> Any:
    value: Any = result
    for key in keys:
        value = (value or {}).get(key)
    return value


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def _line(
    folder: Path,
    row: Row,
    runs: list[dict[str, Any]],
    results: dict[str, dict[str, Any] | None],
    figure: str,
) -> dict[str, Any]:
    """One row over its seeds."""
    mine = [results[run["folder"]] for run in runs]
    found = [_dig(result, figure, "trained") for result in mine]
    values = [value for value in found if value is not None]
    reasons = [folder / f"{run['folder']}.failed" for run in runs]
    failed = sorted({path.read_text().strip() for path in reasons if path.exists()})
    verdicts = Counter(_dig(result, "collapse", "verdict") for result in mine if result)
    shares = {k: v for k, v in runs[0]["values"].items() if row.overrides.get(k) != v}
    return {
        "name": row.name,
        "method": row.method,
        "shares": shares,  # what "x10" and its like came to
        "values": values,
        "mean": fmean(values) if values else None,
        "spread": (max(values) - min(values)) / 2 if len(values) > 1 else None,
        "paper": row.paper,
        "verdicts": dict(verdicts),
        "failed": failed,
        "missing": len(runs) - sum(result is not None for result in mine),
    }


def _methods(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def _agreement(rows: Sequence[dict[str, Any]], method: str) -> float | None:
    """Spearman's rank correlation between our column and the paper's."""
    pairs = [(r["mean"], r["paper"]) for r in rows if r["method"] == method]
    return rank_correlation([(a, b) for a, b in pairs if a is not None and b is not None])


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's correlation in [-1, 1], ties with their mean rank; None below three pairs, or
    where a column is constant."""
    columns = list(zip(*pairs, strict=True))
    if len(pairs) < 3 or any(len(set(column)) == 1 for column in columns):
        return None
    ranks = [[sum(v < x for v in c) + (c.count(x) + 1) / 2 for x in c] for c in columns]
    return correlation(*ranks)


def cells(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows as texts, for Markdown and LaTeX."""
    several = len(summary["correlation"]) > 1
    header = ["row", f"{FIGURES[summary['figure']]} in %", "to baseline", "paper", "to baseline"]
    header = [*(["method"] if several else []), *header, "verdict"]
    body = []
    for row in summary["rows"]:
        shares = ", ".join(f"{name} {_short(value)}" for name, value in row["shares"].items())
        spread = "" if row["spread"] is None else f" ± {row['spread']:.1f}"
        texts = [
            f"{row['name']} ({shares})" if shares else row["name"],
            "–" if row["mean"] is None else f"{row['mean']:.1f}{spread}",
            _signed(row["difference"]),
            "–" if row["paper"] is None else f"{row['paper']:.1f}",
            _signed(row["paper_difference"]),
            _verdict(row),
        ]
        body.append([row["method"], *texts] if several else texts)
    return header, body


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"


def _verdict(row: dict[str, Any]) -> str:
    """healthy; or: 1 healthy, 1 collapsed; and why a run failed, up to the reason's first comma.

    All of it is in the table's JSON and in the runs' .failed files."""
    found = row["verdicts"]
    parts = list(found) if len(found) == 1 else [f"{n} {name}" for name, n in found.items()]
    parts += dict.fromkeys(f"failed: {reason.split(', ')[0]}" for reason in row["failed"])
    waiting = row["missing"] and not row["failed"]
    return ", ".join([*parts, *([f"{row['missing']} to do"] if waiting else [])])


def caption(summary: dict[str, Any]) -> str:
    """What the columns are, in one paragraph."""
    seeds, figure = summary["seeds"], FIGURES[summary["figure"]]
    spread = f", mean of {seeds} seeds ± half the range" if seeds > 1 else ", one seed"
    named = any(row["paper"] is not None for row in summary["rows"])
    metric = "as the rows of the table give it" if named else "none"
    if summary["metric"]:
        metric = f"{summary['metric']} ({summary['source']})"
    texts = [f"Ours: {figure} top-1 in %{spread}; paper: {metric}."]
    if summary["untrained"] is not None:
        texts.append(f"The untrained network: {summary['untrained']:.1f}.")
    for method, value in summary["correlation"].items():
        if value is not None:
            of = f" ({method})" if len(summary["correlation"]) > 1 else ""
            texts.append(f"Rank correlation with the paper{of}: {value:.2f}.")
    if any(row["shares"] for row in summary["rows"]):
        texts.append("In brackets: what a row's multiple of the base came to.")
    return " ".join(texts)


def markdown(summary: dict[str, Any]) -> str:
    """The table with its caption."""
    header, body = cells(summary)
    lines = [header, ["---"] * len(header), *body]
    escaped = ([text.replace("|", "\\|") for text in line] for line in lines)
    rows = "\n".join("| " + " | ".join(line) + " |" for line in escaped)
    return f"{rows}\n\n{caption(summary)}\n"


def latex(summary: dict[str, Any]) -> str:
    """A tabular (package booktabs), its caption as a comment."""
    header, body = cells(summary)
    lines = [" & ".join(map(_tex, line)) + r" \\" for line in (header, *body)]
    columns = "l" * (len(header) - 5) + "rrrrl"
    top = [f"% {caption(summary)}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0]]
    return "\n".join([*top, r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    for sign in "\\&%$#_{}":
        text = text.replace(sign, r"\textbackslash " if sign == "\\" else "\\" + sign)
    return text.replace("±", r"$\pm$").replace("–", "--")


def to_csv(summary: dict[str, Any]) -> str:
    """Plain numbers, a line a row; empty where there is none."""
    names = ("method", "name", "mean", "spread", "difference", "paper", "paper_difference")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "verdict"])
    for row in summary["rows"]:
        writer.writerow([*(row[name] for name in names), _verdict(row)])
    return text.getvalue()
