"""Recipes of the methods that BYOL is compared with: values of the same fields, as published.

Each is a recipe of `byol.recipes`; what our fields cannot say of a method stands in its docstring.
"""

from dataclasses import replace

from byol.config import Config, DataConfig, NetworkConfig, ObjectiveConfig, OptimConfig
from byol.viewspec import PRESETS, T_PRIME, T


def simclr(optim: OptimConfig, images: int) -> Config:
    """SimCLR (arXiv 2002.05709; google-research/simclr): negatives, no predictor, no target.
    ImageNet, ResNet-50, batch 4096, 1000 epochs. Expected: 69.3 linear. Cost: that of paper-1000
    less the target's forward. The weight 2.5 = 1 / (4 alpha) makes the loss NT-Xent plus 10.
    Differs: colours are jittered by BYOL's operations, a hidden layer has a bias."""
    view = replace(T, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5)
    return Config(
        recipe="simclr",
        view1=view,
        view2=view,
        data=DataConfig(image_size=224),
        network=NetworkConfig(
            hidden_size=2048, projection_size=128, projector_output_norm=True, predictor_depth=0
        ),
        objective=ObjectiveConfig(
            target="online", stop_gradient=False, beta=1.0, alpha=0.1, teacher=2.5
        ),
        optim=OptimConfig(epochs=1000, batch_size=4096, base_lr=0.3, weight_decay=1e-6),
    )


def simsiam(optim: OptimConfig, images: int) -> Config:
    """SimSiam (arXiv 2011.10566; facebookresearch/simsiam): the target is the online network,
    behind a stop-gradient. ImageNet, ResNet-50, batch 512, 100 epochs. Expected: 68.1 linear.
    Cost: 100 epochs of ResNet-50 on two views, forward and backward. The weight 0.25 makes the
    loss half the sum of the negative cosines, plus 1. Differs: biases and norms are not decayed;
    the heads' hidden layers have a bias, the predictor's last has none."""
    view = replace(T, crop_area_min=0.2, saturation=0.4, blur=0.5)
    return Config(
        recipe="simsiam",
        view1=view,
        view2=view,
        data=DataConfig(image_size=224),
        network=NetworkConfig(
            zero_gamma="true",
            hidden_size=2048,
            projection_size=2048,
            projector_depth=3,
            projector_output_norm=True,
            predictor_hidden_size=512,
        ),
        objective=ObjectiveConfig(target="online", teacher=0.25),
        optim=OptimConfig(
            epochs=100,
            batch_size=512,
            optimizer="sgd",
            base_lr=0.05,
            warmup_epochs=0,
            weight_decay=1e-4,
            predictor_schedule="constant",
        ),
    )


def mocov3(optim: OptimConfig, images: int) -> Config:
    """MoCo v3 (arXiv 2104.02057; facebookresearch/moco-v3 CONFIG.md): BYOL with negatives.
    ImageNet, ResNet-50, batch 4096, 300 epochs. Expected: 72.8 linear. Cost: that of paper-300.
    Its rates elsewhere: --base-lr 0.6 --tau-base 0.99 for 100 epochs (68.9), --base-lr 0.3
    --tau-base 0.996 --weight-decay 1.5e-6 for 1000 (74.6). Differs: negatives are also taken from
    the same view (paper appendix of BYOL), hidden layers have a bias, no norm ends the predictor,
    and the target moves after the step and not before the forward."""
    return Config(
        recipe="mocov3",
        view1=replace(T, crop_area_min=0.2),
        view2=replace(T_PRIME, crop_area_min=0.2),
        data=DataConfig(image_size=224),
        network=NetworkConfig(
            zero_gamma="true", projector_output_norm=True, independent_target=False
        ),
        objective=ObjectiveConfig(beta=1.0, alpha=1.0),
        optim=OptimConfig(
            epochs=300, batch_size=4096, base_lr=0.3, weight_decay=1e-6, tau_base=0.99
        ),
    )


def _aligned(name: str, teacher: float, optim: OptimConfig) -> Config:
    """|n(p_1) - n(p_2)|^2 + teacher * sum over views of |n(p_v) - n(t_v)|^2, t_v the same view's,
    on small-32."""
    view1, view2 = PRESETS["small"]
    return Config(
        recipe=name,
        view1=view1,
        view2=view2,
        data=DataConfig(image_size=32),
        network=NetworkConfig(model="resnet18", hidden_size=1024),
        objective=ObjectiveConfig(align=1.0, teacher=teacher, compare="same"),
        optim=optim,
    )


def raft(optim: OptimConfig, images: int) -> Config:
    """RAFT (arXiv 2011.10944): align both views' predictions and run away from the mean teacher.
    The paper's benchmarks are CIFAR-10 alone, so all else is small-32's, values by rule, both
    weights 1. Expected: no figure that would compare; docs/results.md has small-32. Cost: that of
    small-32. See byol-prime, its opposite in one sign."""
    return _aligned("raft", -0.5, optim)


def byol_prime(optim: OptimConfig, images: int) -> Config:
    """BYOL' (arXiv 2011.10944): align both views' predictions and follow the mean teacher, each
    view its own target; an upper bound of BYOL's loss, up to constants. All else is small-32's,
    values by rule, both weights 1. Expected: no figure that would compare; docs/results.md has
    small-32. Cost: that of small-32."""
    return _aligned("byol-prime", 0.5, optim)


def mean_teacher(optim: OptimConfig, images: int) -> Config:
    """Mean Teacher without labels (BYOL paper section 5, table on SimCLR and BYOL): BYOL without
    predictor. ImageNet, ResNet-50, batch 4096, 300 epochs. Expected: 0.2 linear, as it collapses.
    Cost: that of paper-300."""
    return Config(
        recipe="mean-teacher",
        data=DataConfig(image_size=224),
        network=NetworkConfig(predictor_depth=0),
        optim=OptimConfig(
            epochs=300, batch_size=4096, base_lr=0.3, weight_decay=1e-6, tau_base=0.99
        ),
    )
