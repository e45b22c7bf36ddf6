"""The protocols of `byol evaluate`, and the options of each. No torch here: they are also flags.

Each is a file byol/tasks/NAME.py with a function `evaluate(subject, data, options, folder, say)`
that returns plain values for NAME.json.
"""

import difflib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from byol.config import option
from byol.config import parse as parse_value
from byol.errors import UserError


@dataclass(frozen=True)
class Knn:
    """weighted vote of the nearest training images (no training)"""

    eval_data: str | None = option(None, "images to measure on (test split, else a tenth)")
    k: int = option(20, "neighbours that vote")
    temperature: float = option(0.07, "a vote is exp(cosine / temperature)")
    seed: int = option(0, "seed of the tenth, where there is no test split")


@dataclass(frozen=True)
class Linear:
    """linear classifier on frozen features (paper appendix C.1)"""

    eval_data: str | None = option(None, "images to measure on (test split, else a tenth)")
    epochs: int = option(80, "passes over the training images")
    batch_size: int | None = option(None, "images a step (1024, or 256 below 20,000 images)")
    augment: bool = option(False, "train on random crops and flips, extracted anew each epoch")
    seed: int = option(0, "seed of the held-out tenth that chooses the learning rate")


@dataclass(frozen=True)
class Detect:
    """object detection by Faster R-CNN (paper appendix D.5)"""

    eval_data: str | None = option(None, "set to score on (test, else val, of the data)")
    split: str | None = option(None, "TRAIN:TEST, names of splits (trainval:test, else train:val)")
    neck: Literal["c4", "fpn"] = option("c4", "conv5 as box head (paper), or a feature pyramid")
    frozen: bool = option(False, "leave every weight of the encoder as it is")
    norms: Literal["frozen", "train"] = option(
        "frozen", "batch norm statistics: those of the encoder, or of the batch while training"
    )
    min_side: int = option(480, "longest edge in pixels that an image is resized to, at least")
    max_side: int = option(1024, "longest edge at most; images are scored at this one")
    flip: bool = option(False, "flip half of the images (the paper does not)")
    steps: int = option(20_000, "steps, at the rate to 2/3, a tenth to 0.8, a hundredth to the end")
    batch_size: int = option(4, "images a step")
    lr: float = option(1e-3, "learning rate of SGD with momentum 0.9")
    anchors: tuple[float, ...] = option((32, 64, 128, 256, 512), "sides of the anchors in pixels")
    proposals: int = option(300, "proposals kept of an image")
    rois: int = option(128, "proposals of an image that the box head is trained on")
    roi_size: int = option(14, "side of the grid that a proposal is sampled on (fpn: 7)")
    baselines: bool = option(True, "the same from scratch; with frozen, from random weights too")
    seed: int = option(0, "seed of order, sizes, new layers and of the untrained network")


PROTOCOLS: dict[str, type] = {"knn": Knn, "linear": Linear, "detect": Detect}


def parse(protocol: str, values: Mapping[str, Any]) -> Any:
    """The options of a protocol from Python values or texts. Raises UserError for what it has not,
    or what does not fit."""
    if protocol not in PROTOCOLS:
        raise UserError(f"there is no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}")
    kind = PROTOCOLS[protocol]
    hints = typing.get_type_hints(kind)
    for name in values:
        if name not in hints:
            near = difflib.get_close_matches(name, hints, 3, 0.5) or list(hints)
            raise UserError(f"{protocol} has no option {name!r}; did you mean {' or '.join(near)}?")
    return kind(**{name: parse_value(name, value, hints[name]) for name, value in values.items()})


def flags(protocol: str) -> list[tuple[str, Any, str]]:
    """(name, type, sentence with the default) of each option of a protocol."""
    hints = typing.get_type_hints(PROTOCOLS[protocol])
    rows = []
    for each in fields(PROTOCOLS[protocol]):
        default = "" if each.default in (None, False) else f" ({each.default})"
        rows.append((each.name, hints[each.name], each.metadata["help"] + default))
    return rows
