"""The paper's table of transfer (tables 3 and 13), with our rows as columns."""

from byol.data.benchmarks import BENCHMARKS

PAPER = ("BYOL (paper)", "supervised (paper)", "random (paper)")
Row = dict[str, float]


def paper(name: str, mode: str) -> tuple[float | None, ...]:
    """Its figures of PAPER for a set, None where it has none."""
    known = BENCHMARKS[name]
    return known.linear if mode == "linear" else known.finetuned or (None, None, None)


def table(sets: dict[str, dict[str, Row]], mode: str) -> list[str]:
    """The paper's table: a line a set, our rows and the paper's figures as columns."""
    rows = list(next(iter(sets.values())))
    heads = [*rows, *PAPER[: 2 if mode == "linear" else 3]]
    lines = [" ".join([f"{'set':<20}", f"{'metric':<15}", *(f"{head:>19}" for head in heads)])]
    for name, found in sets.items():
        known = BENCHMARKS[name]
        ours = [found[row][known.metric] for row in rows]
        cells = ["-" if v is None else f"{v:.1f}" for v in (*ours, *paper(name, mode))]
        cells = [f"{cell:>19}" for cell in cells]
        lines.append(" ".join([f"{known.title:<20}", f"{known.metric:<15}", *cells]))
    return lines
