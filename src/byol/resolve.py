"""From what was asked and what the images are to a complete configuration."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from byol import recipes
from byol.config import Config
from byol.data import statistics
from byol.data.source import Source
from byol.errors import UserError, unknown
from byol.networks.encoder import RESNET
from byol.options import with_options
from byol.viewspec import PRESETS, ViewSpec

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resolve(
    source: Source, data: Any, recipe: str | None, overrides: Mapping[str, Any]
) -> tuple[Config, list[str]]:
    """The complete configuration for a source, and sentences that give the reasons."""
    measured = statistics.measure(source)
    reasons = []
    if recipe is None:
        small = max(measured.height_median, measured.width_median) <= 64
        recipe = "demo" if data is None else "small-32" if small else "photos-224"
        if data is not None:
            reasons.append(
                f"recipe {recipe}, as images are about {measured.width_median:.0f} x "
                f"{measured.height_median:.0f} pixels (--recipe chooses another)"
            )
    overrides = dict(overrides)
    preset = overrides.pop("preset", None)
    given = {key: overrides.get(key) for key in ("epochs", "batch_size", "optimizer")}
    numbers = with_options(Config(), {k: v for k, v in given.items() if v is not None}).optim
    asked = {k: getattr(numbers, k) for k, v in given.items() if v is not None}
    config, reason = recipes.build(recipe, len(source), **asked)
    if reason:
        reasons.append(reason)
    config = with_options(config, _from_data(measured, config.data.image_size))
    if preset is not None:
        view1, view2 = views_of(preset)
        config = replace(config, view1=view1, view2=view2)
    config = with_options(config, overrides)
    if "zero_gamma" not in overrides and not RESNET.fullmatch(config.network.model):
        config = with_options(config, {"zero_gamma": "false"})  # a recipe's, made for ResNets
    if config.data.channels != 3:
        several = "s" * (config.data.channels != 1)
        reasons.append(
            f"images have {config.data.channels} channel{several}: saturation, hue and grey "
            "need RGB and are left out"
        )
    if config.optim.batch_size > len(source):
        reasons.append(
            f"batch {config.optim.batch_size} is larger than the {len(source)} images: an image "
            "appears more than once in a batch, with other views"
        )
    total, _ = config.steps(len(source))
    if total < 1:
        raise UserError(
            f"{config.optim.epochs:g} epochs of {len(source)} images make no step of "
            f"{config.optim.batch_size}: raise --epochs or lower --batch-size"
        )
    return config, reasons


def views_of(preset: str) -> tuple[ViewSpec, ViewSpec]:
    """The two views of a preset. Raises UserError for an unknown name."""
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    return PRESETS[preset]


def _from_data(measured: statistics.Statistics, image_size: int) -> dict[str, Any]:
    """Channel count, value range and normalisation: ImageNet's for 8-bit RGB, else measured."""
    is_photograph = measured.channels == 3 and measured.value_range == (0, 255)
    return {
        "channels": measured.channels,
        "value_range": measured.value_range,
        "mean": IMAGENET_MEAN if is_photograph else measured.mean,
        "std": IMAGENET_STD if is_photograph else measured.std,
    }
