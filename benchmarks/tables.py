"""Puts the figures of docs/results/*.json into the tables of the documents.

A table stands between <!-- NAME:begin --> and <!-- NAME:end -->; everything else of a document is
left alone. With --check, only says whether the documents are up to date (exit code 1 if not).

    python benchmarks/tables.py
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

DOCS = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "docs/results.md",
    "docs/recipes.md",
    "docs/scale.md",
    "docs/performance.md",
)


def markdown(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table; numbers with one decimal."""
    head = list(header)
    lines = [head, ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(cell: Any) -> str:
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def _short(option: Any) -> Any:
    return f"{option:g}" if isinstance(option, float) else option


def where(table: dict[str, Any]) -> str:
    """Device and versions in one line."""
    e = table["environment"]
    device = ", ".join(e.get("devices", [])) or f"{e['cpu']}, {e['threads']} threads"
    if e.get("at_once", 1) > 1:
        device += f", up to {e['at_once']} runs at once"
    return f"{device}, Python {e['python']}, torch {e['packages']['torch']}"


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
        header.append("supervised, same time")
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


_HEADS = {"mean_per_class": "mean per class", "pixel_accuracy": "pixels right", "miou": "mean IoU"}
_HEADS |= {"top1": "top-1", "top5": "top-5", "ap50_voc": "AP50 (VOC)", "ap50": "AP50", "ap": "AP"}
_HEADS |= {f"pct{n}": f"within 1.25^{n}" for n in (1, 2, 3)}


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
    return f"{markdown(heads, figures)}\n\n`{table['command']}`\n\n{_took(table)}."


def _figure(metric: str, value: Any) -> str:
    form = {"rms": ".3f", "rel": ".3f", "lr": "g"}.get(metric, ".1f")
    return "" if value == "" else f"{value:{form}}"


def pretraining(table: dict[str, Any]) -> str:
    """A run that the evaluations begin from: what it was, and what it said of itself at its end."""
    found = table["result"]
    verdict = found and "{verdict}: {reason}".format(**found["collapse"])
    said = verdict or "It was stopped before its last step"
    return f"{table['images']} images. {said}.\n\n`{table['command']}`\n\n{_took(table)}."


def _took(table: dict[str, Any]) -> str:
    return f"{where(table)}; {table['seconds']:.0f} seconds" if "seconds" in table else where(table)


def kill(table: dict[str, Any]) -> str:
    """What benchmarks/kill.py met."""
    r = table["result"]
    words = "are equal byte for byte" if r["equal"] else "DIFFER"
    return (
        f"{r['kills']} kills, {r['during_save']} of them while a checkpoint was being written; "
        f"uninterrupted {r['seconds_uninterrupted']:.0f} seconds. The two encoders {words}."
        f"\n\n`{table['command']}`\n\n{where(table)}."
    )


def fault(table: dict[str, Any]) -> str:
    """What benchmarks/fault.py met."""
    r = table["result"]
    left = ", ".join(r["left_behind"]) or "nothing"
    return (
        f"{r['kills']} kills in a run of {r['processes']} processes, {r['during_save']} of them "
        f"while a checkpoint was being written, ranks {', '.join(map(str, r['ranks']))}: exit code "
        f"{r['exit_code']}, largest difference of a weight {r['difference']}, left behind {left}. "
        f"{r['seconds_undisturbed']} seconds undisturbed, {r['seconds_killed']} killed."
        f"\n\n`{table['command']}`\n\n{where(table)}."
    )


def scaling(table: dict[str, Any]) -> str:
    """A row a measurement of benchmarks/scaling.py, the model beside it; then the constants."""
    cores = table["environment"]["cores"]
    header = ["scaling", "processes", "images each", "step, ms", "alone, ms", "silent, ms"]
    header += ["communication, %"]
    header += ["model: step, ms", "communication, %"]
    body = [
        [
            r["scaling"],
            f"{r['processes']}{' (over-subscribed)' if r['processes'] > cores else ''}",
            r["images_each"],
            *(1000 * r[key] for key in ("seconds", "alone", "silent")),
            100 * r["communication"],
            1000 * r["predicted_seconds"],
            100 * r["predicted_communication"],
        ]
        for r in table["rows"]
    ]
    c = table["constants"]
    counted = [line["counted"] for line in table["measured"] if "counted" in line]
    count = next(iter(counted[0].values()))["reductions"] if counted else 0
    constants = (
        f"Measured: {1000 * c['compute']:.1f} ms an image, {100 * c['norms_over_processes']:.0f} % "
        f"more with norms over processes, noise {c['noise']:.2f}, reading "
        f"{1000 * c['reading']:.2f} ms an image, latency {1e6 * c['latency']:.0f} us, "
        f"{c['bandwidth'] / 1e9:.2f} GB/s, {c['gradient_bytes'] / 1e6:.0f} MB of gradients, "
        f"{count} reductions of norm statistics a step ({c['norm_layers']} layers), "
        f"{c['norm_bytes']:.0f} bytes each."
    )
    sizes = {k: v for line in table["measured"] for k, v in line.get("reductions", {}).items()}
    reduced = markdown(
        ["all-reduce, bytes", *(f"{world} processes, ms" for world in sizes)],
        [[n, *(f"{1000 * sizes[w][n]:.2f}" for w in sizes)] for n in next(iter(sizes.values()))],
    )
    load = f"{where(table)}, {cores} cores; load of other work when it began: {table['load']:.1f}."
    return "\n\n".join([markdown(header, body), constants, reduced, f"`{table['command']}`", load])


def billion(table: dict[str, Any]) -> str:
    """A row a size of benchmarks/billion.py."""
    header = ["images", "index, GB", "start, s", "order, ms a step", "places, ms a step"]
    header += ["memory, MB", "pages of the index, MB", "pickled, bytes"]
    keys = ["file_gb", "start_seconds", "order_ms_a_step", "places_ms_a_step"]
    keys += ["own_mb", "mapped_mb", "pickled_bytes"]
    rows = [[f"{r['images']:,}", *(f"{r[key]:g}" for key in keys)] for r in table["rows"]]
    made = table["making"]
    return (
        f"{markdown(header, rows)}\n\nA step is {table['batch']} images. Making an index of shards "
        f"that are read takes {made['seconds_a_million']:.1f} seconds and {made['bytes']:.0f} MB a "
        f"million images.\n\n`{table['command']}`\n\n{where(table)}."
    )


def speed(table: dict[str, Any]) -> str:
    """What benchmarks/timing.py published: competitors, and how many times the base's cost."""
    base = table["rows"][table["base"]]["cpu_ms"][1]
    rows = []
    for who, row in table["rows"].items():
        low, middle, high = row["cpu_ms"]
        cells = [f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{row['wall_ms'][1]:.3f}"]
        own_floor = "ratio_to_floor" in table  # which the notes say of each
        rows.append([who, *cells, *([] if own_floor else [f"{middle / base:.2f}"])])
    header = [
        table["title"],
        f"ms of processor time per {table['per']}",
        "quartiles",
        "ms on the clock",
    ]
    notes = "".join(f"\n- {note}" for note in table["notes"])
    return (
        markdown([*header, *([] if own_floor else [f"ratio to {table['base']}"])], rows)
        + f"\n\n`{table['command']}`\n\n{where(table)}.\n{notes}"
    ).rstrip()


def literal(table: dict[str, Any]) -> str:
    """kNN by the fast path and by the literal loop, seed by seed, and their means."""
    names = ("fast", "literal", "untrained")
    rows: list[list[Any]] = [[r["seed"], *(r[name] for name in names)] for r in table["rows"]]
    rows.append(["**mean**", *(mean(r[name] for r in table["rows"]) for name in names)])
    text = markdown(["seed", *(f"kNN {name}" for name in names)], rows)
    return (
        f"{text}\n\n`{table['command']}` (fast: {table['precision']}; the views of the first batch "
        f"differ by {table['views_differ']:.2f} / 255 at most)\n\n{where(table)}."
    )


def memory(table: dict[str, Any]) -> str:
    """What a step holds at most."""
    rows = [
        [who, *(f"{row[key]:.2f}" if key in row else "" for key in ("counted_gb", "resident_gb"))]
        for who, row in table["rows"].items()
    ]
    header = ["at the peak of a step", "GB counted", "GB resident in the process"]
    return f"{markdown(header, rows)}\n\n`{table['command']}`\n\n{where(table)}."


def monitored(table: dict[str, Any]) -> str:
    """What a run's monitor wrote on its way."""
    rows = []
    for r in table["rows"]:
        epochs = r["step"] * table["batch_size"] / table["images"]
        rank = f"{r['projection_rank']:.0f}"
        rows.append([r["step"], f"{epochs:.1f}", f"{r['knn']:.1f}", f"{r['probe']:.1f}", rank])
    header = ["step", "epochs", "kNN", "online probe", "rank of the projections"]
    return f"{markdown(header, rows)}\n\n`{table['command']}`\n\n{where(table)}."


def gpu(table: dict[str, Any]) -> str:
    """Throughput and utilisation by case, then where the time of the first one goes."""
    rows = []
    for r in table["rows"]:
        share = r.get("utilisation")
        cells = [
            f"{100 * share:.1f} %" if share else "",
            f"{100 * r.get('waiting_share', 0):.1f} %",
        ]
        memory, start = r.get("gib"), r.get("start_up_seconds")
        cells += [f"{memory:.1f}" if memory else "", f"{start:.0f}" if start else ""]
        speed = f"{r['images_per_second']:.0f}"
        rows.append([r["case"], r["mode"], r.get("batch", ""), speed, *cells])
    header = ["case", "mode", "batch", "images/s", "model-FLOPs utilisation", "waiting for data"]
    header += ["peak GiB", "first 10 steps, s"]
    first = max(
        (r for r in table["rows"] if r["case"] == "resnet50-memory"),
        key=lambda r: float(r["images_per_second"]),
    )
    # An operator's time is that of its kernels, which stand for themselves.
    single = {
        k["kernel"]: k["ms"] for k in first["kernels"] if not k["kernel"].startswith("aten::")
    }
    top = [[name[:70], ms] for name, ms in single.items()]
    kernels = markdown([f"kernel ({first['case']}, {first['mode']})", "ms a step"], top)
    how = f"`{table['command']}`, {table['date']}; {where(table)}."
    return f"{markdown(header, rows)}\n\n{kernels}\n\n{how}"


def loader(table: dict[str, Any]) -> str:
    """Images a second by workers, batch and size; waiting; opening a folder of many files."""
    rows = [[r["workers"], r["batch"], r["size"], f"{r['images']:.0f}"] for r in table["rows"]]
    shares = [[f"{r['times']:g}", f"{100 * r['waiting']:.1f} %"] for r in table["waiting"]]
    start = table["opening"]
    opened = (
        f"A folder of {start['files']:,} files in 1,000 classes is open after "
        f"{start['first']:.1f} s the first time and {start['second']:.1f} s the next "
        f"({start['second_cpu']:.1f} s of processor time, imports among them)."
    )
    return "\n\n".join(
        [
            markdown(["workers", "batch", "pixels", "images/s, both crops"], rows),
            markdown(["step, in times of what a batch takes", "waiting for data"], shares),
            opened,
            f"`{table['command']}`",
            f"{where(table)}.",
        ]
    )


def gpu_speeds(table: dict[str, Any]) -> str:
    """Throughput alone, the faster mode of each case."""
    fastest: dict[str, float] = {}
    for row in table["rows"]:
        fastest[row["case"]] = max(row["images_per_second"], fastest.get(row["case"], 0))
    named = {
        "resnet50-memory": "ResNet-50, 224 pixels, images in memory",
        "resnet50-files": "ResNet-50, 224 pixels, from JPEG files",
        "lightly, resnet50, views ready": "the same by lightly's loop, views ready",
        "vit-s16-files": "ViT-S/16, 224 pixels, from JPEG files",
        "resnet18-32": "ResNet-18, small stem, 32 pixels",
    }
    rows = [[what, f"{fastest[case]:,.0f}"] for case, what in named.items() if case in fastest]
    how = f"`{table['command']}`, {where(table)}."
    return f"{markdown(['both views of an image', 'images/s'], rows)}\n\n{how}"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "demo": demo,
    "cifar": run,
    "cifar-resnet18": run,
    "cifar-gpu": monitored,
    "photos": run,
    "sizes": sweep,
    "batches": sweep,
    "vit": sweep,
    "choices-knn": sweep,
    "kill": kill,
    "fault": fault,
    "scaling": scaling,
    "billion": billion,
    "speed/loader": loader,
    "speed/literal": literal,
    "speed/gpu": gpu,
    "speed/gpu#speeds": gpu_speeds,
    "speed/memory-resnet50-2x-224-256-large-bf16": memory,
    "speed/memory-resnet50-224-16-large-fp32": memory,
}
TABLES["scenes"] = pretraining
for _name in ("knn", "linear", "supervised", "semisup", "semisup-all", "transfer", "finetune"):
    TABLES[f"evaluate-cifar-{_name}"] = evaluation
for _name in ("photos-knn", "photos-linear", "segment", "detect", "depth"):
    TABLES[f"evaluate-{_name}"] = evaluation


def made() -> dict[str, Callable[[dict[str, Any]], str]]:
    """The function of each table, those of all published timings included."""
    timings = sorted((DOCS / "docs" / "results" / "speed").glob("*.json"))
    return {f"speed/{file.stem}": speed for file in timings} | TABLES


def _between(content: str, found: re.Match[str]) -> str:
    return f"{found[1]}{content}\n{found[2]}"


def filled(text: str) -> str:
    """The document with every table made anew."""
    for name, make in made().items():
        source = DOCS / "docs" / "results" / f"{name.partition('#')[0]}.json"
        mark = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if source.exists() and mark.search(text):
            content = make(json.loads(source.read_text()))
            text = mark.sub(partial(_between, content), text)
    return text


def main() -> int:
    """Write the documents, or with --check compare them."""
    stale = []
    for name in DOCUMENTS:
        path = DOCS / name
        if path.exists() and filled(path.read_text()) != path.read_text():
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(filled(path.read_text()))
    if "--check" in sys.argv and stale:
        print(f"not up to date: {', '.join(stale)}; run python benchmarks/tables.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
