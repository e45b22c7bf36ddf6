"""A picture of published timings: bars of processor time, the lowest at the top of each panel."""

import json
import textwrap
from collections.abc import Sequence

from benchmarks.timing import HOME


def picture(name: str, tables: Sequence[str]) -> None:
    """docs/performance/NAME.png of those of docs/results/speed/TABLE.json that exist."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    files = [HOME / "results" / "speed" / f"{table}.json" for table in tables]
    found = [json.loads(file.read_text()) for file in files if file.exists()]
    if not found:
        return
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(6 * columns, 2.4 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(found) :]:
        axis.remove()
    for axis, table in zip(axes.flat, found, strict=False):
        costs = sorted(((r["cpu_ms"], who) for who, r in table["rows"].items()), reverse=True)
        middle = [cost[1] for cost, _ in costs]
        spread = [[c[1] - c[0] for c, _ in costs], [c[2] - c[1] for c, _ in costs]]
        colours = ["tab:blue" if who == "byol" else "silver" for _, who in costs]
        axis.barh([who for _, who in costs], middle, xerr=spread, color=colours)
        axis.set_title("\n".join(textwrap.wrap(table["title"], 70)), fontsize=9)
        axis.set_xlabel(f"ms of processor time per {table['per']}", fontsize=8)
        axis.tick_params(labelsize=8)
    target = HOME / "performance" / f"{name}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=90)
    pyplot.close(figure)
