"""What runs and their evaluations reached."""

from statistics import mean, stdev
from typing import Any

from benchmarks.shown.markdown import markdown, took, where


def demo(table: dict[str, Any]) -> str:
    """A row a seed, then mean, deviation, and the lowest trained beside the highest others."""
    rows = table["rows"]
    kinds = [("knn", "trained"), ("knn", "untrained"), ("knn", "raw_pixels")]
    kinds += [("linear", "trained"), ("linear", "untrained"), ("linear", "raw_pixels")]
    body: list[list[Any]] = [
        [r["seed"], *(r[a][b] for a, b in kinds), r["collapse"]["verdict"], r["seconds"]]
        for r in rows
    ]
    columns = [[float(r[a][b]) for r in rows] for a, b in kinds]
    body.append(["**mean**", *map(mean, columns), "", mean(r["seconds"] for r in rows)])
    body.append(["deviation", *map(stdev, columns), "", ""])
    hardest = [min(c) if kinds[i][1] == "trained" else max(c) for i, c in enumerate(columns)]
    body.append(["**worst**", *hardest, "", max(r["seconds"] for r in rows)])
    names = [f"{a} {b.replace('_', ' ')}".replace("knn", "kNN") for a, b in kinds]
    return markdown(["seed", *names, "verdict", "seconds"], body) + f"\n\n{where(table)}."


def run(table: dict[str, Any]) -> str:
    """One run: trained, untrained, raw pixels, and what labels would have given."""
    result = table["result"]
    rows = [
        ["kNN", *(result["knn"][name] for name in ("trained", "untrained", "raw_pixels"))],
        ["linear", *(result["linear"][name] for name in ("trained", "untrained", "raw_pixels"))],
    ]
    header = ["top-1 in %", "BYOL", "untrained", "raw pixels"]
    if "supervised" in table:
        header.append(f"supervised, {table['supervised']['seconds'] / 60:.0f} minutes")
        rows[0].append(table["supervised"]["knn"])
        rows[1].append(table["supervised"]["top1"])
    time = f"{result['cpu_seconds'] / 60:.0f} minutes of processor time in all"
    return f"{markdown(header, rows)}\n\n`{table['command']}`\n\n{where(table)}; {time}."


def sweep(table: dict[str, Any]) -> str:
    """Runs that differ in a few options: a row each."""
    names = list(table["rows"][0]["options"])
    rows = [
        [
            *(_short(r["options"].get(n, "")) for n in names),
            r["result"]["knn"]["trained"],
            r["result"]["knn"]["untrained"],
            r["result"]["knn"]["raw_pixels"],
            r["result"]["collapse"]["verdict"],
        ]
        for r in table["rows"]
    ]
    header = [*names, "kNN trained", "untrained", "raw pixels", "verdict"]
    return f"{markdown(header, rows)}\n\n{where(table)}."


def _short(option: Any) -> Any:
    return f"{option:g}" if isinstance(option, float) else option


def monitored(table: dict[str, Any]) -> str:
    """What a run's monitor wrote on its way."""
    rows = []
    for r in table["rows"]:
        epochs = r["step"] * table["batch_size"] / table["images"]
        rank = f"{r['projection_rank']:.0f}"
        rows.append([r["step"], f"{epochs:.1f}", f"{r['knn']:.1f}", f"{r['probe']:.1f}", rank])
    header = ["step", "epochs", "kNN", "online probe", "rank of the projections"]
    return f"{markdown(header, rows)}\n\n`{table['command']}`\n\n{where(table)}."


def evaluation(table: dict[str, Any]) -> str:
    """A command of benchmarks/evaluations.py: rows by metrics, the paper's figures last."""
    rows, metrics = table["rows"], table["metrics"]
    shown = [m for m in metrics if any(m in row for row in rows.values())]
    body = [
        [name.replace("_", " "), *(row.get(m, "") for m in shown)] for name, row in rows.items()
    ]
    if table["paper"]:
        paper = [table["paper"].get(m, "") for m in shown]
        body.append([f"paper: {table['paper_data']}", *paper])
    figures = [[line[0], *map(_figure, shown, line[1:])] for line in body]
    heads = ["", *(_HEADS.get(m, m) for m in shown)]
    return f"{markdown(heads, figures)}\n\n`{table['command']}`\n\n{took(table)}."


def _figure(metric: str, value: Any) -> str:
    form = {"rms": ".3f", "rel": ".3f", "lr": "g"}.get(metric, ".1f")
    return "" if value == "" else f"{value:{form}}"


def pretraining(table: dict[str, Any]) -> str:
    """A run that the evaluations begin from: what it was, and what it said of itself at its end."""
    found = table["result"]
    verdict = found and "{verdict}: {reason}".format(**found["collapse"])
    said = verdict or "It was stopped before its last step"
    return f"{table['images']} images. {said}.\n\n`{table['command']}`\n\n{took(table)}."


_HEADS = {"mean_per_class": "mean per class", "pixel_accuracy": "pixels right", "miou": "mean IoU"}
_HEADS |= {"top1": "top-1", "top5": "top-5", "ap50_voc": "AP50 (VOC)", "ap50": "AP50", "ap": "AP"}
_HEADS |= {f"pct{n}": f"within 1.25^{n}" for n in (1, 2, 3)}
