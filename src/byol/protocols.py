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
from byol.errors import UserError, unknown
from byol.options import parse as parse_value


@dataclass(frozen=True)
class Knn:
    """weighted vote of the nearest training images (no training)"""

    eval_data: str | None = option(None, "images to measure on (test split, else leave one out)")
    k: tuple[int, ...] = option((20,), "neighbours that vote; several make a table: 1,5,20,200")
    temperature: tuple[float, ...] = option((0.07,), "a vote is exp(cosine / temperature)")
    baselines: bool = option(True, "measure the untrained network and raw pixels as well")
    seed: int = option(0, "seed of the untrained network")


@dataclass(frozen=True)
class Linear:
    """linear classifier on frozen features (paper appendix C.1)"""

    eval_data: str | None = option(None, "images to measure on (test split, else a tenth)")
    epochs: int = option(80, "passes over the training images")
    batch_size: int | None = option(None, "images a step (1024, or 256 below 20,000 images)")
    augment: bool = option(False, "train on random crops and flips, extracted anew each epoch")
    variant: Literal["paper", "improved"] = option(
        "paper", "improved: the pretraining's views, bounded and penalised logits (slow)"
    )
    rates: tuple[float, ...] | None = option(
        None, "base learning rates to choose from (0.001 to 10; the paper: 0.05 to 0.4)"
    )
    baselines: bool = option(True, "measure the untrained network and raw pixels as well")
    seed: int = option(0, "seed of the held-out tenth that chooses the learning rate")


@dataclass(frozen=True)
class Semisup:
    """fine-tuning with a share of the labels (paper appendix C.1)"""

    eval_data: str | None = option(None, "images to measure on (test split, else a tenth)")
    fractions: tuple[float, ...] = option((1, 2, 5, 10, 20, 50, 100), "percent of the labels")
    list: str | None = option(None, "a file of image names, one a line, in the place of fractions")
    lrs: tuple[float, ...] = option((0.005, 0.01, 0.02, 0.05, 0.1), "learning rates to choose from")
    epochs: tuple[float, ...] = option((30, 50), "numbers of epochs to choose from")
    batch_size: int = option(1024, "images a step")
    baselines: bool = option(True, "train from scratch, and a linear layer untrained, as well")
    seed: int = option(0, "seed of the subsets, the order and the crops")


@dataclass(frozen=True)
class Supervised:
    """the same network trained from scratch with all labels, for comparison"""

    eval_data: str | None = option(None, "images to measure on (test split, else a tenth)")
    epochs: float = option(90, "passes over the training images")
    seconds: float | None = option(None, "train for this much processor time instead of epochs")
    lr: float = option(0.1, "learning rate at the first step, falling to 0 along a cosine")
    batch_size: int = option(256, "images a step")
    weight_decay: float = option(5e-4, "weight decay")
    views: Literal["plain", "run"] = option("plain", "random crop and flip, or the run's own views")
    k: int = option(20, "neighbours that vote, in the kNN of its features")
    temperature: float = option(0.07, "a vote is exp(cosine / temperature)")
    seed: int = option(0, "seed of the weights, the order and the crops")


@dataclass(frozen=True)
class Transfer:
    """classification on your labelled images, or on the paper's sets (paper appendix D)"""

    eval_data: str | None = option(None, "images to measure on (test split, else a tenth)")
    set: str | None = option(None, "one of the paper's sets, such as cifar10; DATA is its folder")
    all: bool = option(False, "every one of the paper's sets that is found in the folder DATA")
    download: bool = option(False, "let torchvision fetch sets that are missing")
    mode: Literal["linear", "finetune"] = option(
        "linear", "logistic regression on frozen features, or training whole"
    )
    steps: int = option(20_000, "finetune: optimizer steps of each training")
    batch_size: int = option(256, "finetune: images a step")
    lrs: tuple[float, ...] | None = option(
        None, "finetune: learning rates to choose from (7 from 1e-4 to 0.1)"
    )
    weight_decays: tuple[float, ...] | None = option(
        None, "finetune: weight decays to choose from, divided by the rate (0, 7 from 1e-6 to 1e-3)"
    )
    baselines: bool = option(True, "measure the untrained network too (finetune: from scratch)")
    seed: int = option(0, "seed of held-out images, and of the untrained network")


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
    baselines: bool = option(True, "the same from scratch, and the head on random weights")
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
    baselines: bool = option(True, "the same from scratch, and the head on random weights")
    seed: int = option(0, "seed of heads, crops and colours")


@dataclass(frozen=True)
class Detect:
    """object detection by Faster R-CNN (paper appendix D.5)"""

    eval_data: str | None = option(None, "set to score on (test, else val, of the data)")
    split: str | None = option(None, "TRAIN:TEST, names of splits (trainval:test, else train:val)")
    neck: Literal["c4", "fpn"] = option("c4", "conv5 as box head (paper), or a feature pyramid")
    frozen: bool = option(False, "leave every weight of the encoder as it is")
    norms: Literal["frozen", "train"] = option(
        "train", "batch norm statistics: of the batch while training, or those of the encoder"
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
    baselines: bool = option(True, "the same from scratch, and on frozen random weights")
    seed: int = option(0, "seed of order, sizes, new layers and of the untrained network")


PROTOCOLS: dict[str, type] = {
    "knn": Knn,
    "linear": Linear,
    "semisup": Semisup,
    "supervised": Supervised,
    "transfer": Transfer,
    "segment": Segment,
    "depth": Depth,
    "detect": Detect,
}


def parse(protocol: str, values: Mapping[str, Any]) -> Any:
    """The options of a protocol from Python values or texts. Raises UserError for what it has not,
    or what does not fit."""
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    kind = PROTOCOLS[protocol]
    hints = typing.get_type_hints(kind)
    for name in values:
        if name not in hints:
            near = difflib.get_close_matches(name, hints, 3, 0.5) or list(hints)
            raise UserError(f"{protocol} has no option {name!r}; did you mean {' or '.join(near)}?")
    return kind(**{name: _parsed(name, value, hints[name]) for name, value in values.items()})


def _parsed(name: str, value: Any, hint: Any) -> Any:
    """As in config, but a lone number is a list of one."""
    is_list = tuple in (typing.get_origin(h) for h in (hint, *typing.get_args(hint)))
    value = (value,) if is_list and isinstance(value, int | float) else value
    return parse_value(name, value, hint)


def _shown(default: Any) -> str:
    """A default as it would be typed, behind its flag's sentence."""
    if default is None or default is False or default == ():
        return ""
    parts = default if isinstance(default, tuple) else (default,)
    return f" ({','.join(str(part).lower() for part in parts)})"


def flags(protocol: str) -> list[tuple[str, Any, str]]:
    """(name, type, sentence with the default) of each option of a protocol."""
    hints = typing.get_type_hints(PROTOCOLS[protocol])
    rows = []
    for each in fields(PROTOCOLS[protocol]):
        rows.append((each.name, hints[each.name], each.metadata["help"] + _shown(each.default)))
    return rows
