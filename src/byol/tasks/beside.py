"""Other encoders beside the one that is evaluated: what they are called, and their rows."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from byol.errors import UserError

OWN = ("trained", "untrained", "raw_pixels")  # rows that every table may have


def named(given: Sequence[str | Path] | str | Path) -> dict[str, str]:
    """Row to encoder of a list of `[NAME=]ENCODER`; by default the name of the file or folder.

    Raises UserError for a name that is given twice, or that a row of the table has already.
    """
    found: dict[str, str] = {}
    for each in [given] if isinstance(given, str | Path) else given:
        match = re.fullmatch(r"(?:([\w .+-]+)=)?(.+)", str(each), re.DOTALL)
        assert match is not None
        name, encoder = match[1] or _default(match[2]), match[2]
        if name in (*OWN, *found):
            raise UserError(
                f"--beside {each} would be a second row called {name}: give it another name, "
                f"--beside NAME={encoder}"
            )
        found[name] = encoder
    return found


def _default(encoder: str) -> str:
    if re.match(r"(timm|torchvision):", encoder):
        return encoder.partition(":")[2].replace("/", "_")
    path = Path(encoder)
    plain = path.name if path.is_dir() else path.stem
    return path.resolve().parent.name if plain == "encoder" else plain or path.resolve().name


def add(result: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """Put the row of the encoder `name`, which `found` was measured for, into a result; the whole
    of it stands under "beside"."""
    row = name if name not in result["rows"] else f"{name} (beside)"
    result["rows"][row] = found["rows"][name]
    result.setdefault("beside", {})[name] = found
