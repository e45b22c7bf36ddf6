"""A table of Markdown, and the machine that its figures come from."""

from collections.abc import Iterable
from typing import Any


def markdown(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table; numbers with one decimal."""
    head = list(header)
    lines = [head, ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(cell: Any) -> str:
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def where(table: dict[str, Any]) -> str:
    """Device and versions in one line."""
    e = table["environment"]
    device = ", ".join(e.get("devices", [])) or f"{e['cpu']}, {e['threads']} threads"
    if e.get("at_once", 1) > 1:
        device += f", up to {e['at_once']} runs at once"
    return f"{device}, Python {e['python']}, torch {e['packages']['torch']}"


def took(table: dict[str, Any]) -> str:
    return f"{where(table)}; {table['seconds']:.0f} seconds" if "seconds" in table else where(table)
