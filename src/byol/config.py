"""The configuration of a run: typed, frozen, complete. The saved config.yaml is the whole of it.

Field names are unique over all groups, so each is also a flag of the command line and a keyword
of `byol.pretrain`; a view's fields carry the prefix `view1_` or `view2_` there. `help` is the
flag's sentence, `common` puts it on the first page of --help.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast

from byol.errors import UserError
from byol.viewspec import T_PRIME, T, ViewSpec

Optimizer = Literal["lars", "sgd", "adamw"]
Norm = Literal["batch", "group", "group-ws", "layer", "none"]


def option(default: Any, help: str, common: bool = False) -> Any:
    """A dataclass field that is also a flag: its default and its sentence."""
    return field(default=default, metadata={"help": help, "common": common})


@dataclass(frozen=True)
class DataConfig:
    """What the images are. The measured fields are filled in when a run begins."""

    eval_data: str | None = option(None, "labelled images to monitor and evaluate on", True)
    split: str | None = option(None, "which split of the data to train on (train)")
    hold_out: bool = option(
        False, "keep the monitored tenth away from pretraining too, where data has no test split"
    )
    image_size: int = option(224, "side of a view in pixels", True)
    crop_rule: Literal["torchvision", "official"] = option(
        "torchvision", "random crops: ten attempts, or one attempt cut to the image (official)"
    )
    antialias: bool = option(True, "antialias when shrinking (the official code does not)")
    channels: int | None = option(None, "channels of an image (measured)")
    value_range: tuple[float, float] | None = option(
        None, "pixel values that become 0 and 1 (0 255 for 8 bits, else measured)"
    )
    mean: tuple[float, ...] | None = option(None, "channel means in [0, 1] (ImageNet's for RGB)")
    std: tuple[float, ...] | None = option(None, "channel deviations (ImageNet's for RGB)")
    bad_share: float = option(0.1, "share of undecodable files above which the run ends")
    workers: int | None = option(None, "processes that read files (cores - 1 at most 8)", True)


@dataclass(frozen=True)
class NetworkConfig:
    """Encoder, projector and predictor (paper section 3.3)."""

    model: str = option("resnet50", "encoder: convnet, resnet18..200, resnet50-2x, or timm's", True)
    stem: Literal["large", "small"] = option(
        "large", "ResNet stem: 7x7 stride 2 and pool, or 3x3 stride 1 for small images"
    )
    reference: bool = option(
        False, "official conventions: SAME padding, initialisation, norm averages, no autocast"
    )
    norm: Norm = option(
        "batch",
        "norm layers: batch, group, group-ws (and standardised weights), layer, or none (affine "
        "layers set once from the first batch)",
    )
    projector_norm: Norm | None = option(
        None, "norm layers of the projector (as the encoder's; layer norm where those are group)"
    )
    predictor_norm: Norm | None = option(
        None, "norm layers of the predictor (as the encoder's; layer norm where those are group)"
    )
    norm_images: int | None = option(
        None, "images over which batch norm takes its statistics (all that pass at once)"
    )
    norm_over: Literal["all", "process"] = option(
        "all", "whose images pass at once for batch norm: all processes', or each one's own"
    )
    zero_gamma: Literal["false", "true", "identity"] = option(
        "false",
        "start residual branches at 0 (true: released code) instead of 1 (the paper's results), or "
        "those alone whose shortcut is the identity (one of stride 2 sees one pixel in four)",
    )
    zero_unseen: bool = option(
        False, "start weights at 0 that no pixel reaches as images are small (LARS counts them)"
    )
    hidden_size: int = option(4096, "hidden units of projector and predictor")
    projection_size: int = option(256, "size of projections and predictions")
    projector_depth: int = option(2, "linear layers of the projector")
    projector_output_norm: bool = option(
        False, "a norm layer without scale and offset at the projector's output"
    )
    predictor: Literal["mlp", "closed-form"] = option(
        "mlp", "predictor: trained layers, or the least-squares matrix of each batch"
    )
    predictor_depth: int = option(2, "linear layers of the predictor (0: none)")
    predictor_hidden_size: int | None = option(
        None, "hidden units of the predictor (those of the projector)"
    )
    ridge: float = option(
        1e-6, "ridge of the closed-form predictor, as a share of the mean square projection"
    )
    independent_target: bool = option(
        True, "initialise the target by itself (official) instead of copying the online network"
    )


@dataclass(frozen=True)
class OptimConfig:
    """How long, how fast (paper section 3.3)."""

    epochs: float = option(100, "passes over the images", True)
    batch_size: int = option(256, "images per optimizer step, over all devices", True)
    accumulation: int = option(1, "pieces in which a batch is computed when memory is short")
    optimizer: Optimizer = option("lars", "lars, sgd or adamw")
    base_lr: float = option(0.3, "learning rate at batch size 256 (chosen by rule)", True)
    warmup_epochs: float = option(10, "passes over which the learning rate rises")
    weight_decay: float = option(1e-6, "weight decay, none on biases and norms")
    momentum: float = option(0.9, "momentum of LARS and SGD")
    trust_coefficient: float = option(1e-3, "LARS: share of a weight's norm that a step may move")
    tau_base: float = option(0.99, "decay of the target's moving average at step 0")
    projector_lr: float = option(1, "multiplies the projector's learning rate")
    predictor_lr: float = option(1, "multiplies the predictor's learning rate")
    predictor_schedule: Literal["cosine", "constant"] = option(
        "cosine", "learning rate of the predictor: as the others, or always their peak"
    )


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is trained towards what (paper section 5 and relatives): BYOL by default."""

    target: Literal["average", "online"] = option(
        "average", "whose projection is predicted: the moving average's or the online network's own"
    )
    stop_gradient: bool = option(True, "no gradient through the target (false: online target)")
    tau_schedule: Literal["cosine", "constant"] = option(
        "cosine", "tau rises from tau_base to 1, or stays"
    )
    copy_every: int = option(0, "make the target a copy every so many steps, in place of tau")
    beta: float = option(0, "weight of the negatives: InfoNCE(alpha, beta)")
    alpha: float = option(0.1, "temperature of the negatives")
    loss_normalisation: Literal["l2", "layer", "batch", "none"] = option(
        "l2", "how predictions and targets are normalised in the loss"
    )
    directions: Literal["both", "one"] = option("both", "both views predict, or the first alone")
    compare: Literal["other", "same"] = option("other", "the view whose target a prediction meets")
    teacher: float = option(1, "weight of the distance to the target (below 0: away from it)")
    align: float = option(0, "weight of the distance between both views' predictions")


@dataclass(frozen=True)
class TrainConfig:
    """The machine and what is written when."""

    seed: int = option(0, "seed of weights, order, crops and views", True)
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps", True)
    precision: Literal["auto", "bf16", "fp32"] = option(
        "auto", "bf16 autocast where the hardware has it, or fp32", True
    )
    compile: bool = option(False, "torch.compile the encoders, and on a GPU the views")
    cuda_graph: bool | None = option(
        None, "launch a step as one CUDA graph (on one GPU with images of up to 64 pixels)"
    )
    checkpointing: bool = option(
        False, "compute each block's activations again for the backward pass: less memory"
    )
    compress_gradients: bool = option(False, "several processes exchange gradients in bf16")
    shard_optimizer: bool = option(False, "several processes share out the optimizer's state")
    deterministic: bool = option(False, "bit-identical repeats on CUDA, slower")
    evaluations: int = option(10, "times that the run is measured on its way")
    final_linear: bool = option(True, "train linear probes at the end")
    knn_k: int = option(20, "neighbours that vote")
    knn_temperature: float = option(0.07, "a neighbour's vote is exp(cosine / temperature)")
    log_every: int = option(10, "steps between lines of metrics.jsonl")
    save_seconds: float = option(120, "seconds between checkpoints")
    stop_on_collapse: bool = option(False, "end the run when the verdict is collapsed")


@dataclass(frozen=True)
class Config:
    """A complete run."""

    recipe: str = option("small-32", "starting point (see byol recipes)", True)
    view1: ViewSpec = T
    view2: ViewSpec = T_PRIME
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()

    def steps(self, images: int) -> tuple[int, int]:
        """Total and warm-up steps: floor(epochs images / batch size), as in the official code."""
        per_epoch = images / self.optim.batch_size
        total = int(self.optim.epochs * per_epoch)
        return total, min(int(self.optim.warmup_epochs * per_epoch), total - 1)


GROUPS: dict[str, type] = {
    "optim": OptimConfig,
    "network": NetworkConfig,
    "objective": ObjectiveConfig,
    "data": DataConfig,
    "train": TrainConfig,
    "view1": ViewSpec,
    "view2": ViewSpec,
}
# What a resumed run may change, as it changes no weight.
FREE = (
    "data.workers",
    "train.evaluations",
    "train.final_linear",
    "train.knn_k",
    "train.knn_temperature",
    "train.log_every",
    "train.save_seconds",
    "train.stop_on_collapse",
    "train.shard_optimizer",
    "train.cuda_graph",
)


def options() -> Iterator[tuple[str, str, dataclasses.Field[Any], Any]]:
    """(flat name, group, field, type) of every option, in order."""
    for group, kind in GROUPS.items():
        hints = typing.get_type_hints(kind)
        prefix = f"{group}_" if kind is ViewSpec else ""
        for option in fields(kind):
            yield prefix + option.name, group, option, hints[option.name]


def with_options(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with flat options replaced; texts are parsed by the option's type.

    Raises UserError for an unknown name (with the nearest ones) or a value that does not fit.
    """
    known = {name: (group, option.name, kind) for name, group, option, kind in options()}
    changes: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0.5) or sorted(known)[:5]
            raise UserError(f"there is no option {name!r}; did you mean {' or '.join(near)}?")
        group, attribute, kind = known[name]
        changes.setdefault(group, {})[attribute] = parse(name, value, kind)
    groups = {group: replace(getattr(config, group), **change) for group, change in changes.items()}
    return replace(config, **groups)


def parse(name: str, value: Any, kind: Any) -> Any:
    """`value` (a text from the command line, or a Python value) as the type `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    try:
        if origin in (types.UnionType, typing.Union):  # X | None
            if value is None or (value == "none" and "none" not in typing.get_args(arguments[0])):
                return None
            return parse(name, value, arguments[0])
        if origin is Literal:
            value = str(value).lower() if isinstance(value, bool) else value
            if value not in arguments:
                raise ValueError
            return value
        if origin is tuple:
            parts = value.replace(",", " ").split() if isinstance(value, str) else value
            numbers = tuple(float(part) for part in parts)
            if arguments[0] is int:
                if any(number % 1 for number in numbers):
                    raise ValueError
                numbers = tuple(int(number) for number in numbers)
            if Ellipsis not in arguments and len(numbers) != len(arguments):
                raise ValueError
            return numbers
        if kind is bool:
            return _truth(value)
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        return kind(value)
    except (TypeError, ValueError):
        allowed = " or ".join(map(str, arguments)) if origin is Literal else _words(kind)
        raise UserError(f"{name} is {value!r}, which is not {allowed}") from None


def _truth(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    text = str(value).lower()
    if text not in words:
        raise ValueError
    return words[text]


def _words(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        sides = typing.get_args(kind)
        return "a list of numbers" if Ellipsis in sides else f"{len(sides)} numbers"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(kind, str(kind))


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain values, as written to config.yaml."""
    plain = dataclasses.asdict(config)
    return cast(dict[str, Any], _listed(plain))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def from_dict(plain: Mapping[str, Any]) -> Config:
    """The inverse of to_dict. Raises UserError for unknown keys."""
    config = Config(recipe=plain.get("recipe", Config.recipe))
    values: dict[str, Any] = {}
    for group, content in plain.items():
        if group in GROUPS:
            prefix = f"{group}_" if GROUPS[group] is ViewSpec else ""
            values.update({prefix + key: value for key, value in content.items()})
        elif group not in ("recipe", "source"):
            raise UserError(f"config.yaml has a key {group!r} that this version does not know")
    return with_options(config, values)


_ABOVE_0 = {
    "epochs", "batch_size", "accumulation", "base_lr", "trust_coefficient", "hidden_size",
    "projection_size", "projector_depth", "evaluations", "knn_k", "knn_temperature", "log_every",
    "crop_area_min", "crop_ratio_min", "blur_sigma_min", "predictor_hidden_size", "ridge", "alpha",
    "norm_images",
}  # fmt: skip
_FROM_0 = {
    "warmup_epochs", "weight_decay", "predictor_depth", "seed", "save_seconds", "workers",
    "brightness", "contrast", "saturation", "hue", "predictor_lr", "projector_lr", "copy_every",
    "align",
}  # fmt: skip
_FROM_0_TO_1 = {
    "tau_base", "momentum", "bad_share", "flip", "flip_vertical", "rotate", "jitter", "grey",
    "blur", "solarize", "crop_area_max", "beta",
}  # fmt: skip


def _check_bounds(name: str, option: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} is {value}; it must be a finite number")
    if option in _ABOVE_0 and value <= 0:
        raise UserError(f"{name} is {value}; it must be above 0")
    if option in _FROM_0 and value < 0:
        raise UserError(f"{name} is {value}; it must be 0 or more")
    if option in _FROM_0_TO_1 and not 0 <= value <= 1:
        raise UserError(f"{name} is {value}; it must be from 0 to 1")


def check(config: Config) -> None:
    """Refuse what cannot work. Raises UserError with what to do instead."""
    for name, group, option, _ in options():
        value = getattr(getattr(config, group), option.name)
        if value is not None:
            _check_bounds(name, option.name, value)
    _check_optim(config.optim)
    _check_network(config.network, config.optim)
    _check_objective(config.objective)
    for other in ("compile", "cuda_graph"):
        if config.train.checkpointing and getattr(config.train, other):
            raise UserError(f"checkpointing and {other} do not go together: leave out one of them")
    if config.data.image_size < 8:
        raise UserError(f"image_size is {config.data.image_size}; it must be 8 or more")
    for name in ("view1", "view2"):
        for kind in ("crop_area", "crop_ratio", "blur_sigma"):
            low, high = (getattr(getattr(config, name), f"{kind}_{end}") for end in ("min", "max"))
            if low > high:
                raise UserError(f"{name}_{kind}_min is {low}, above {name}_{kind}_max, {high}")


def check_share(config: Config, world: int) -> None:
    """Refuse a number of processes that cannot share a batch. Raises UserError."""
    optim, network = config.optim, config.network
    at_once = optim.batch_size // optim.accumulation
    if at_once % world:
        raise UserError(
            f"{at_once} images pass at once (batch_size / accumulation), which {world} processes "
            f"cannot share equally: start a number of processes that divides {at_once}, or change "
            "--batch-size"
        )
    if network.norm_over == "process" and (own := at_once // world) % (network.norm_images or own):
        raise UserError(
            f"norm_images is {network.norm_images}, which does not divide the {own} images of a "
            "process: change it, or leave norm_over at all"
        )


def _check_optim(optim: OptimConfig) -> None:
    peak = optim.base_lr * optim.batch_size / 256
    if optim.optimizer == "adamw" and peak > 0.02:
        raise UserError(
            f"a learning rate of {peak:g} (base {optim.base_lr:g} at batch {optim.batch_size}) is "
            "for LARS; AdamW takes 0.0001 to 0.02: use --base-lr 0.001 or --optimizer lars"
        )
    if optim.optimizer == "sgd" and peak > 2:
        raise UserError(
            f"a learning rate of {peak:g} is for LARS; SGD takes 0.01 to 2: use --base-lr 0.2 or "
            "--optimizer lars"
        )
    if optim.batch_size < 2 * optim.accumulation or optim.batch_size % optim.accumulation:
        raise UserError(
            f"batch_size {optim.batch_size} does not split into {optim.accumulation} equal pieces "
            "of 2 images or more: batch norm needs 2, and all pieces must be alike"
        )


def _check_network(network: NetworkConfig, optim: OptimConfig) -> None:
    projector, predictor = head_norms(network)
    norms = {network.norm, projector, predictor}
    if network.reference and norms != {"batch"}:
        raise UserError("the reference network has batch norm: leave the norms at 'batch'")
    if network.projector_output_norm and projector == "none":
        raise UserError(
            "projector_output_norm needs a norm, and the projector's is none: leave out one of them"
        )
    if network.predictor == "closed-form" and network.predictor_depth == 0:
        raise UserError(
            "predictor_depth 0 means no predictor, but a closed-form one is asked for: leave out "
            "one of the two"
        )
    if images := network.norm_images:
        if "batch" not in norms:
            raise UserError("norm_images is for batch norm, of which there is none: leave it out")
        if images < 2 or optim.batch_size // optim.accumulation % images:
            raise UserError(
                f"norm_images is {images}; it must be 2 or more and divide the "
                f"{optim.batch_size // optim.accumulation} images that pass at once"
            )


def _check_objective(objective: ObjectiveConfig) -> None:
    online = objective.target == "online"
    for wrong, sentence in (
        (
            not objective.stop_gradient and not online,
            "stop_gradient false needs --target online: a moving average takes no gradient",
        ),
        (
            objective.copy_every and online,
            "copy_every is for --target average: with target online there is nothing to copy to",
        ),
        (
            objective.beta and objective.loss_normalisation != "l2",
            "negatives (beta above 0) are compared by cosine: leave loss_normalisation at l2",
        ),
        (
            objective.beta and objective.compare == "same",
            "negatives (beta above 0) are defined between two views: leave compare at other",
        ),
        (
            objective.compare == "same" and online,
            "compare same with --target online compares a view with itself: use target average",
        ),
        (
            objective.teacher == 0 and objective.align == 0,
            "teacher 0 and align 0 leave nothing to learn: set one of them",
        ),
    ):
        if wrong:
            raise UserError(sentence)


def head_norms(network: NetworkConfig) -> tuple[Norm, Norm]:
    """Norms of projector and predictor: as asked, else the encoder's, with layer for group norm.

    Groups of a vector's features have no meaning of their own; standardised weights keep them, as
    published.
    """
    default: Norm = "layer" if network.norm == "group" else network.norm
    return network.projector_norm or default, network.predictor_norm or default
