"""BYOL's relatives and variants as whole runs: each trains three steps from the public function."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import byol
from byol import pretraining
from byol.build import build_learner
from byol.config import Config
from byol.engine.gradients import make_views
from byol.engine.optimizer import build_optimizer
from byol.networks.norm import Affine
from byol.optim import set_learning_rate
from byol.options import with_options

TINY: dict[str, Any] = {
    "model": "convnet-4", "image_size": 16, "epochs": 0.75, "batch_size": 16, "hidden_size": 16,
    "projection_size": 8, "workers": 0, "evaluations": 1, "log_every": 1, "warmup_epochs": 0,
    "mode": "quiet",
}  # fmt: skip


def images() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)


def losses(out: Path, **options: Any) -> list[float]:
    """Train three steps, read the encoder back, and return the loss of each step."""
    result = byol.pretrain(images(), out=out, **{**TINY, **options})
    assert result["collapse"]["verdict"] == "too early"
    features = byol.load_encoder(out)(torch.rand(4, 3, 16, 16))
    assert features.shape == (4, 32) and features.isfinite().all()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    values = [line["loss"] for line in lines if "loss" in line]
    assert len(values) == 3 and np.isfinite(values).all()
    return values


@pytest.mark.parametrize(
    "name", ["simclr", "simsiam", "mocov3", "raft", "byol-prime", "mean-teacher"]
)
def test_every_recipe_of_a_relative_trains(name: str, tmp_path: Path) -> None:
    losses(tmp_path / "run", recipe=name)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "group-ws"},
        {"norm": "layer"},
        {"norm": "none"},
        {"norm": "none", "projector_norm": "batch", "norm_images": 8},
        {"norm_images": 4, "accumulation": 2},
        {"norm_images": 8, "reference": True},
        {"predictor": "closed-form", "copy_every": 1},
        {"predictor_lr": 10, "projector_lr": 2, "tau_base": 0, "tau_schedule": "constant"},
        {"loss_normalisation": "batch", "directions": "one"},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_variant_trains(options: dict[str, Any], tmp_path: Path) -> None:
    losses(tmp_path / "run", **options)


def test_simsiams_loss_is_one_more_than_the_published_one(tmp_path: Path) -> None:
    """In [-1, 1] there: half the sum of both negative cosines."""
    assert all(0 <= loss <= 2 for loss in losses(tmp_path / "run", recipe="simsiam"))


def test_rates_of_projector_and_predictor() -> None:
    values = {**TINY, "predictor_lr": 10, "projector_lr": 2, "predictor_schedule": "constant"}
    del values["mode"]
    config = with_options(Config(), {**values, "mean": (0.5,) * 3, "std": (0.2,) * 3})
    learner = build_learner(config)
    optimizer = build_optimizer(config, learner)
    set_learning_rate(optimizer, 0.25, 0.5)
    rates = {id(w): group["lr"] for group in optimizer.param_groups for w in group["params"]}
    for part, rate in ((learner.encoder, 0.25), (learner.projector, 0.5), (learner.predictor, 5.0)):
        assert {rates.pop(id(w)) for w in part.parameters()} == {rate}
    assert not rates  # the target has none


def test_without_multipliers_there_are_the_two_groups_of_old_checkpoints() -> None:
    values = {key: value for key, value in TINY.items() if key != "mode"}
    config = with_options(Config(), {**values, "mean": (0.5,) * 3, "std": (0.2,) * 3})
    optimizer = build_optimizer(config, build_learner(config))
    assert [group["adapt"] for group in optimizer.param_groups] == [True, False]
    set_learning_rate(optimizer, 0.25, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}


def test_without_norms_the_first_batch_leaves_every_layer_standardised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both networks, on the images of step 0; seen where the loop would begin."""
    moments: list[Tensor] = []

    def look(config: Config, learner: byol.Byol, loader: Any, *rest: Any) -> Any:
        def keep(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
            axes = [axis for axis in range(output.ndim) if axis != 1]
            moments.append(torch.stack(torch.var_mean(output, axes, correction=0)))

        layers = [m for m in learner.modules() if isinstance(m, Affine)]
        assert len(layers) == 2 * (5 + 1) + 1  # five convolutions, heads of two linear layers
        for layer in layers:
            layer.register_forward_hook(keep)
        view1, _ = make_views(config, next(loader.batches(0, 1)), torch.device("cpu"))
        with torch.no_grad():
            learner.predictor(learner.projector(learner.encoder(view1)))
            learner.target_projector(learner.target_encoder(view1))
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "fit", look)
    with pytest.raises(KeyboardInterrupt):
        byol.pretrain(images(), out=tmp_path / "run", **{**TINY, "norm": "none"})
    assert len(moments) == 13
    for variance, mean in moments:
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-4)
        assert variance.median() > 0.9 and variance.max() < 1.01
