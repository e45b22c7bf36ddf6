"""Recipes: functions that return a complete configuration, and the rule for data of any size."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from byol.config import Config, DataConfig, NetworkConfig, OptimConfig, TrainConfig
from byol.errors import UserError, unknown
from byol.relatives import byol_prime, mean_teacher, mocov3, raft, simclr, simsiam
from byol.viewspec import PRESETS

IMAGENET_IMAGES = 1_281_167


@dataclass(frozen=True)
class Choice:
    """What the rule picks, and why."""

    base_lr: float
    tau_base: float
    weight_decay: float
    warmup_epochs: float
    reason: str


def rule(images: int, batch_size: int, epochs: float, optimizer: str = "lars") -> Choice:
    """Learning rate, tau and weight decay for a number of images, a batch size and epochs.

    tau: the horizon 1 / (1 - tau) of the moving average is 0.46 sqrt(steps), which meets the
    published values within a factor of 1.6 from 12,511 steps (tau 0.97) to 312,784 (0.996), and
    the smallest run measured here (1,860 steps, 0.95).

    LARS: at a million images the published values, 0.3 (epochs / 300)^-0.35 at batch 4096 and at
    most 0.45, times (4096 / batch)^(1/3) (which meets the pair 0.2 at 4096 and 0.4 at 512); up to
    100,000 images 2 (256 / batch)^(1/3), as small sets bear more (2.0 at batch 256 is the official
    Imagenette setting); a geometric mean in between. SGD takes a sixteenth of it, AdamW 0.001 at
    batch 256 with the square root of the batch.

    Warm-up: 10 epochs as published, and a tenth of the run at most. Weight decay: 1e-6, rising to
    1.5e-6 from 300 to 1,000 epochs (the published pair).
    """
    steps = max(1, int(epochs * images / batch_size))
    horizon = max(0.46 * math.sqrt(steps), 5.0)
    tau_base = round(1 - 1 / horizon, 5)
    published = min(0.3 * (epochs / 300) ** -0.35, 0.45) * (4096 / batch_size) ** (1 / 3)
    small = 2.0 * (256 / batch_size) ** (1 / 3)
    share = min(max(math.log10(images / 100_000), 0.0), 1.0)  # 0 up to 100,000, 1 from a million
    base_lr = small ** (1 - share) * published**share
    weight_decay = 1e-6 * 1.5 ** min(max(math.log(epochs / 300, 10 / 3), 0.0), 1.0)
    if optimizer == "sgd":
        base_lr, weight_decay = base_lr / 16, 5e-4
    if optimizer == "adamw":
        base_lr, weight_decay = 1e-3 * math.sqrt(256 / batch_size), 0.05
    base_lr = float(f"{base_lr:.3g}")
    warmup = min(10.0, epochs / 10)
    peak = base_lr * batch_size / 256
    reason = (
        f"{images:,} images, batch {batch_size}, {epochs:g} "
        f"{'epoch is' if epochs == 1 else 'epochs are'} {steps:,} step{'s' * (steps != 1)}: tau "
        f"from {tau_base:g} (the target averages the last {horizon:.0f} steps, 0.46 sqrt(steps)), "
        f"{optimizer} with base learning rate {base_lr:g} (peak {peak:.3g} after {warmup:g} "
        f"epochs), weight decay {weight_decay:.2g}"
    )
    return Choice(base_lr, tau_base, weight_decay, warmup, reason)


def _length(images: int, most: int) -> tuple[float, int]:
    """Epochs and batch size: 100 epochs, or as many as make 3,000 steps; batches of 64 up to
    10,000 images, `most` for larger sets."""
    batch_size = 64 if images <= 10_000 else most
    return max(100.0, float(math.ceil(3000 * batch_size / images))), batch_size


def _ruled(optim: OptimConfig, images: int) -> tuple[OptimConfig, str]:
    choice = rule(images, optim.batch_size, optim.epochs, optim.optimizer)
    ruled = replace(
        optim,
        base_lr=choice.base_lr,
        tau_base=choice.tau_base,
        weight_decay=choice.weight_decay,
        warmup_epochs=choice.warmup_epochs,
    )
    return ruled, choice.reason


def _paper(epochs: int, base_lr: float, weight_decay: float, tau_base: float) -> Config:
    return Config(
        recipe=f"paper-{epochs}",
        network=NetworkConfig(model="resnet50"),
        data=DataConfig(image_size=224),
        optim=OptimConfig(
            epochs=epochs,
            batch_size=4096,
            base_lr=base_lr,
            weight_decay=weight_decay,
            tau_base=tau_base,
        ),
    )


def paper_40(optim: OptimConfig, images: int) -> Config:
    """ImageNet, ResNet-50, batch 4096, 40 epochs. Expected: 61.5 +- 0.5 linear, 62 +- 0.5 online
    (an author, deepmind-research issue 76). Cost: about 20 minutes on 512 TPU v3 cores.
    Source: official `byol/configs/byol.py`."""
    return _paper(40, 0.45, 1e-6, 0.97)


def paper_100(optim: OptimConfig, images: int) -> Config:
    """ImageNet, ResNet-50, batch 4096, 100 epochs. Expected: not published by the authors; others
    report 66 to 68 linear. Cost: about 50 minutes on 512 TPU v3 cores.
    Source: official `byol/configs/byol.py`."""
    return _paper(100, 0.45, 1e-6, 0.99)


def paper_300(optim: OptimConfig, images: int) -> Config:
    """ImageNet, ResNet-50, batch 4096, 300 epochs: the paper's ablations. Expected: 72.5 linear
    (paper section 5). Cost: about 2.5 hours on 512 TPU v3 cores."""
    return _paper(300, 0.3, 1e-6, 0.99)


def paper_1000(optim: OptimConfig, images: int) -> Config:
    """ImageNet, ResNet-50, batch 4096, 1000 epochs: the paper's main result. Expected: 74.3 linear
    (paper table 1). Cost: about 8 hours on 512 TPU v3 cores (paper section 3.3)."""
    return _paper(1000, 0.2, 1.5e-6, 0.996)


def paper_1000_b512(optim: OptimConfig, images: int) -> Config:
    """ImageNet, ResNet-50, batch 512, 1000 epochs. Expected: 73.7 linear (paper appendix, smaller
    batch). Cost: about 4 days on 64 TPU v3 cores."""
    config = _paper(1000, 0.4, 1.5e-6, 0.9995)
    return replace(config, recipe="paper-1000-b512", optim=replace(config.optim, batch_size=512))


def small_32(optim: OptimConfig, images: int) -> Config:
    """Images of about 32 pixels on modest hardware: ResNet-18 with the standard stem, views without
    blur, residual branches that start at 0 beside an identity, values by rule; 100 epochs, or as
    many as make 3,000 steps. Expected on CIFAR-10 and cost: docs/results.md. On a GPU add
    --compile true, and --stem small (3x3 stride 1), at several times the cost."""
    view1, view2 = PRESETS["small"]
    return Config(
        recipe="small-32",
        view1=view1,
        view2=view2,
        data=DataConfig(image_size=32),
        network=NetworkConfig(model="resnet18", hidden_size=1024, zero_gamma="identity"),
        optim=optim,
    )


def photos_224(optim: OptimConfig, images: int) -> Config:
    """A few thousand to a few hundred thousand photographs on one GPU: ResNet-50, the paper's
    views, values by rule. Expected: nothing published for data of your own; docs/results.md has a
    short run. Cost: about 65 GFLOP an image and epoch, forward and backward."""
    return Config(
        recipe="photos-224",
        data=DataConfig(image_size=224),
        network=NetworkConfig(model="resnet50"),
        optim=optim,
    )


def demo(optim: OptimConfig, images: int) -> Config:
    """The drawn textures with a plain ConvNet. Expected: docs/results.md. Cost: under three minutes
    on two CPU cores. Grey in 8 of 10 views instead of the paper's 2: on these pictures colour means
    nothing, and it is what BYOL would learn first."""
    view1, view2 = PRESETS["textures"]
    return Config(
        recipe="demo",
        view1=view1,
        view2=view2,
        data=DataConfig(image_size=32),
        network=NetworkConfig(model="convnet", hidden_size=512, projection_size=128),
        optim=optim,
        train=TrainConfig(evaluations=6),
    )


Recipe = Callable[[OptimConfig, int], Config]
RECIPES: dict[str, tuple[Recipe, OptimConfig | None]] = {
    # name: the recipe, and the epochs, batch and optimizer that the rule starts from (None: fixed)
    "demo": (demo, OptimConfig(epochs=30, batch_size=64, optimizer="sgd")),
    "small-32": (small_32, OptimConfig(epochs=100, batch_size=128)),
    "photos-224": (photos_224, OptimConfig(epochs=100, batch_size=256)),
    "paper-40": (paper_40, None),
    "paper-100": (paper_100, None),
    "paper-300": (paper_300, None),
    "paper-1000": (paper_1000, None),
    "paper-1000-b512": (paper_1000_b512, None),
    "simclr": (simclr, None),
    "simsiam": (simsiam, None),
    "mocov3": (mocov3, None),
    "raft": (raft, OptimConfig(epochs=100, batch_size=128)),
    "byol-prime": (byol_prime, OptimConfig(epochs=100, batch_size=128)),
    "mean-teacher": (mean_teacher, None),
}


def build(
    name: str,
    images: int = IMAGENET_IMAGES,
    epochs: float | None = None,
    batch_size: int | None = None,
    optimizer: str | None = None,
) -> tuple[Config, str]:
    """The recipe's complete configuration for `images` images, and the rule's reason ("" where the
    recipe is fixed). Raises UserError for an unknown name."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    recipe, start = RECIPES[name]
    for word, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{word} is {value}; it must be above 0")
    if name != "demo" and start is not None:
        length = _length(images, start.batch_size)
        start = replace(start, epochs=length[0], batch_size=batch_size or length[1])
    asked = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer}
    given = {key: value for key, value in asked.items() if value is not None}
    if start is None:
        config = recipe(OptimConfig(), images)
        return replace(config, optim=replace(config.optim, **given)), ""  # type: ignore[arg-type]
    optim, reason = _ruled(replace(start, **given), images)  # type: ignore[arg-type]
    return recipe(optim, images), reason
