"""Which training images keep their labels: a share of each class, or those that a list names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from byol.data.source import Source
from byol.errors import UserError

HELD = 0.1  # of each class, to choose settings on


def orders(labels: np.ndarray, seed: int, first: np.ndarray | None = None) -> list[np.ndarray]:
    """The images of each class in the order in which subsets take them, drawn from `seed`.

    `first`: images that come before all others.
    """
    found = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = np.random.default_rng((seed, int(label))).permutation(members)
        if first is not None:
            members = members[np.argsort(~np.isin(members, first), kind="stable")]
        found.append(members)
    return found


def balanced(order: list[np.ndarray], percent: float) -> np.ndarray:
    """`percent` of each class, one image at least, sorted; a smaller percentage lies within."""
    counts = [max(1, round(len(members) * percent / 100)) for members in order]
    return np.sort(np.concatenate([m[:n] for m, n in zip(order, counts, strict=True)]))


def held_out(order: list[np.ndarray]) -> np.ndarray:
    """The last tenth of each class, one image at least of a class that has two; sorted."""
    counts = [max(1, int(HELD * len(m))) if len(m) > 1 else 0 for m in order]
    return np.sort(np.concatenate([m[len(m) - n :] for m, n in zip(order, counts, strict=True)]))


def read_list(file: Path, source: Source, say: Callable[[str], None]) -> np.ndarray:
    """Places (n,) in the source of the images whose names `file` holds, one a line; sorted.

    A name is a file name or the end of a path. Names that fit no image, or several, are left out,
    and `say` hears of them; UserError where none fits.
    """
    try:
        names = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as a list of file names: {error}") from error
    places: dict[str, list[int]] = {}
    ends = ["/" + source.locate(i).replace("\\", "/").replace(":", "/") for i in range(len(source))]
    for i, end in enumerate(ends):
        places.setdefault(end.rsplit("/", 1)[1], []).append(i)
    found: set[int] = set()
    wrong = []
    for name in names:
        end = "/" + name.replace("\\", "/").lstrip("./")
        fitting = [i for i in places.get(end.rsplit("/", 1)[1], []) if ends[i].endswith(end)]
        if len(fitting) == 1:
            found.add(fitting[0])
        else:
            wrong.append(name)
    few = ", ".join(wrong[:5]) + (", ..." if len(wrong) > 5 else "")
    if not found:
        raise UserError(
            f"{file} names no image of {source.name} ({few or 'it is empty'}); one file name a "
            "line is expected, such as " + source.locate(0).replace("\\", "/").rsplit("/", 1)[-1]
        )
    if wrong:
        say(f"{len(wrong)} of {len(names)} names in {file} fit no image or several: {few}")
    return np.array(sorted(found))
