"""The protocols of `byol evaluate`, and the options of each. No torch here: they are also flags.

Each is a file byol/tasks/NAME.py with a function `evaluate(subject, data, options, folder, say)`
that returns plain values for NAME.json.
"""

import difflib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

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
class Segment:
    """semantic segmentation, fine-tuned: mean IoU (paper appendix D.4)"""

    train_split: str | None = option(None, "list of pairs to train on (trainaug, else train)")
    eval_split: str | None = option(None, "list of pairs to measure on (test, else val)")
    steps: int = option(30_000, "steps of training")
    batch_size: int = option(16, "images a step")
    crop: int = option(513, "side of a crop in pixels, in training and measuring")
    lr: tuple[float, ...] = option(
        (0.01,), "learning rates, of which a held-out fifth chooses (paper: 5 in 0.001 to 0.1)"
    )
    weight_decay: float = option(1e-4, "weight decay")
    frozen: bool = option(False, "train the head alone, on the encoder as it is")
    baselines: bool = option(True, "train an untrained encoder alike, to compare")
    seed: int = option(0, "seed of heads, crops and held-out images")


@dataclass(frozen=True)
class Depth:
    """depth from one image, fine-tuned: five errors (paper appendix D.6)"""

    train_split: str | None = option(None, "list of pairs to train on (train)")
    eval_split: str | None = option(None, "list of pairs to measure on (test, else val)")
    steps: int = option(7_500, "steps of training")
    batch_size: int = option(256, "images a step")
    side: int = option(240, "shorter side of an image when shrunk, in pixels")
    width: int = option(304, "width of the crop that is left of it")
    height: int = option(228, "height of the crop")
    lr: float = option(0.16, "learning rate of 256 images a step; it scales with the batch")
    weight_decay: float = option(5e-4, "weight decay")
    depth_scale: float = option(1000, "units of a depth file in a metre")
    frozen: bool = option(False, "train the head alone, on the encoder as it is")
    baselines: bool = option(True, "train an untrained encoder alike, to compare")
    seed: int = option(0, "seed of heads, crops and colours")


PROTOCOLS: dict[str, type] = {"knn": Knn, "linear": Linear, "segment": Segment, "depth": Depth}


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
