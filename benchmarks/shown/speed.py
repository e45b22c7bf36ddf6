"""What views, steps, loaders and a GPU take."""

from statistics import mean
from typing import Any

from benchmarks.shown.markdown import markdown, where


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
