"""Pictures and tables from what a run wrote: it reads files and tensors, never the live run."""

import json
from pathlib import Path

import numpy as np
from torch import Tensor

from byol.engine.files import atomic_write

COLUMNS = 8


def contact_sheet(
    views: tuple[Tensor, Tensor], path: Path, captions: list[str] | None = None
) -> None:
    """Both views (B, C, S, S) in [0, 1] of the first images as one PNG: view 1 above view 2."""
    from io import BytesIO

    from PIL import Image, ImageDraw

    count = min(2 * COLUMNS, len(views[0]))
    side, gap = views[0].shape[-1], max(2, views[0].shape[-1] // 32)
    scale = max(1, 96 // side)
    tile, rows = side * scale, -(-count // COLUMNS)
    left = 60
    size = (left + COLUMNS * (tile + gap) + gap, rows * (2 * tile + 3 * gap) + gap)
    sheet = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for i in range(count):
        row, column = divmod(i, COLUMNS)
        for v, view in enumerate(views):
            x = left + gap + column * (tile + gap)
            y = gap + row * (2 * tile + 3 * gap) + v * (tile + gap)
            sheet.paste(Image.fromarray(_picture(view[i])).resize((tile, tile), 0), (x, y))
            if column == 0:
                draw.text(
                    (6, y + tile // 2 - 6), (captions or ["view 1", "view 2"])[v], (90, 90, 90)
                )
    data = BytesIO()
    sheet.save(data, "PNG")
    atomic_write(path, data.getvalue())


def _picture(image: Tensor) -> np.ndarray:
    """(C, S, S) in [0, 1] as (S, S, 3) uint8; other than 3 channels show the first as grey."""
    pixels = (image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)).cpu()
    return (pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def curves(run: Path) -> None:
    """curves.png: loss, kNN and online probe, and the projections' spread over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    lines = read_metrics(run)
    panels = [
        ("loss", {"loss": ""}),
        ("accuracy in %", {"knn": "kNN", "probe": "online probe"}),
        ("projections", {"projection_deviation": "deviation", "projection_cosine": "cosine"}),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    for axis, (title, names) in zip(axes, panels, strict=True):
        for name, label in names.items():
            points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
            if points:
                marker = "." * (len(points) < 30)
                axis.plot(*zip(*points, strict=True), label=label, marker=marker)
        axis.set_title(title, loc="left")
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
        if axis.has_data() and len(names) > 1:  # above the panel, where no line can pass
            axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2)
        if not axis.has_data():
            axis.text(0.5, 0.5, "no labels", ha="center", va="center", transform=axis.transAxes)
    figure.savefig(run / "curves.png", dpi=110)
    plt.close(figure)


def write_embeddings(
    path: Path, features: np.ndarray, labels: np.ndarray, locations: list[str]
) -> None:
    """Features (N, D), labels (N,) and locations as .npz or .parquet, in one move."""
    from io import BytesIO

    data = BytesIO()
    if path.suffix == ".npz":
        np.savez(data, features=features, labels=labels, locations=np.array(locations))
    else:
        import pyarrow as pa
        from pyarrow import parquet

        flat = pa.array(features.ravel())
        table = pa.table(
            {
                "location": locations,
                "label": labels,
                "feature": pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
            }
        )
        parquet.write_table(table, data)
    atomic_write(path, data.getvalue())
