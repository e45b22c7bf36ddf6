"""What a configuration may not be: values out of range, and pairs that do not go together."""

import math
from typing import Any

from byol.config import Config, NetworkConfig, ObjectiveConfig, OptimConfig, head_norms
from byol.errors import UserError
from byol.options import options

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


def check_graph(config: Config, device: str, world: int) -> None:
    """Refuse a CUDA graph that is asked for where a step cannot be one. Raises UserError."""
    if not config.train.cuda_graph:
        return
    for wrong, why in (
        (device != "cuda", f"the device is {device}, not cuda"),
        (world > 1, f"there are {world} processes, which wait for each other amid a step"),
        (config.optim.accumulation > 1, "accumulation makes a step of several pieces"),
        (config.network.predictor == "closed-form", "a closed-form predictor is solved for"),
    ):
        if wrong:
            raise UserError(f"a step cannot be a CUDA graph, as {why}: leave --cuda-graph out")


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
