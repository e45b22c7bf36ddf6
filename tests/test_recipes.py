"""Recipes: one contract for all, and the rule against what was published."""

import inspect

import pytest

from byol.checks import check
from byol.config import ObjectiveConfig
from byol.errors import UserError
from byol.options import from_dict, to_dict
from byol.recipes import IMAGENET_IMAGES, RECIPES, build, rule

RULED = [name for name, (_, start) in RECIPES.items() if start is not None]
PAPER = [name for name in RECIPES if name.startswith("paper-")]


@pytest.mark.parametrize("images", [64, 400, 4_000, 50_000, IMAGENET_IMAGES])
@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_is_a_complete_configuration_that_can_work(name: str, images: int) -> None:
    config, reason = build(name, images)
    check(config)
    assert config.recipe == name
    assert from_dict(to_dict(config)) == config
    total, warmup = config.steps(images)
    if name in RULED:
        assert 0 <= warmup <= total / 10 and config.optim.warmup_epochs <= 10
        assert f"{images:,}" in reason and f"{config.optim.tau_base:g}" in reason
        assert f"{config.optim.base_lr:g}" in reason and config.optim.optimizer in reason


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_says_what_to_expect_and_what_it_costs(name: str) -> None:
    text = inspect.getdoc(RECIPES[name][0])
    assert text and "Expected" in text and "cost" in text.lower()


@pytest.mark.parametrize("name", list(RECIPES))
def test_length_and_batch_size_can_be_asked_for(name: str) -> None:
    config, _ = build(name, 10_000, epochs=7, batch_size=32, optimizer="adamw")
    assert (config.optim.epochs, config.optim.batch_size) == (7, 32)
    assert config.optim.optimizer == "adamw"


RELATIVES = ["simclr", "simsiam", "mocov3", "raft", "byol-prime", "mean-teacher"]


def test_published_configurations_of_relatives() -> None:
    """Batch, base rate, weight decay, epochs, and the sizes of the heads."""
    found = {
        name: (
            c.optim.batch_size, c.optim.base_lr, c.optim.weight_decay, c.optim.epochs,
            c.network.hidden_size, c.network.projection_size, c.network.predictor_depth,
        )
        for name, c in ((name, build(name)[0]) for name in RELATIVES if name not in RULED)
    }  # fmt: skip
    assert found == {
        "simclr": (4096, 0.3, 1e-6, 1000, 2048, 128, 0),
        "simsiam": (512, 0.05, 1e-4, 100, 2048, 2048, 2),
        "mocov3": (4096, 0.3, 1e-6, 300, 4096, 256, 2),
        "mean-teacher": (4096, 0.3, 1e-6, 300, 4096, 256, 0),
    }


@pytest.mark.parametrize("name", RELATIVES)
def test_a_relative_is_byol_but_for_a_handful_of_values(name: str) -> None:
    objective = build(name)[0].objective
    changed = {f: v for f, v in vars(objective).items() if v != getattr(ObjectiveConfig, f)}
    assert (
        changed
        == {
            "simclr": {"target": "online", "stop_gradient": False, "beta": 1.0, "teacher": 2.5},
            "simsiam": {"target": "online", "teacher": 0.25},
            "mocov3": {"beta": 1.0, "alpha": 1.0},
            "raft": {"align": 1.0, "teacher": -0.5, "compare": "same"},
            "byol-prime": {"align": 1.0, "teacher": 0.5, "compare": "same"},
            "mean-teacher": {},
        }[name]
    )


@pytest.mark.parametrize("name", RELATIVES)
def test_a_relative_names_its_source(name: str) -> None:
    assert "arXiv" in (text := inspect.getdoc(RECIPES[name][0]) or "") or "section 5" in text


def test_the_rule_makes_every_optimizer_work() -> None:
    for name in RULED:
        for optimizer in ("lars", "sgd", "adamw"):
            for batch_size in (32, 256, 4096):
                check(build(name, 50_000, batch_size=batch_size, optimizer=optimizer)[0])


def test_published_configurations() -> None:
    found = {
        name: (c.optim.batch_size, c.optim.base_lr, c.optim.weight_decay, c.optim.tau_base)
        for name, c in ((name, build(name)[0]) for name in PAPER)
    }
    assert found == {
        "paper-40": (4096, 0.45, 1e-6, 0.97),
        "paper-100": (4096, 0.45, 1e-6, 0.99),
        "paper-300": (4096, 0.3, 1e-6, 0.99),
        "paper-1000": (4096, 0.2, 1.5e-6, 0.996),
        "paper-1000-b512": (512, 0.4, 1.5e-6, 0.9995),
    }
    for name in PAPER:
        config, reason = build(name)
        network, optim = config.network, config.optim
        assert reason == "" and (network.model, config.data.image_size) == ("resnet50", 224)
        assert (network.hidden_size, network.projection_size) == (4096, 256)
        assert (network.projector_depth, network.predictor_depth) == (2, 2)
        assert (optim.optimizer, optim.momentum, optim.warmup_epochs) == ("lars", 0.9, 10)
        assert optim.trust_coefficient == 1e-3


@pytest.mark.parametrize("name", ["paper-40", "paper-100", "paper-300", "paper-1000"])
def test_the_rule_meets_the_published_values(name: str) -> None:
    optim = build(name)[0].optim
    choice = rule(IMAGENET_IMAGES, optim.batch_size, optim.epochs)
    horizons = (1 - optim.tau_base) / (1 - choice.tau_base)
    assert 1 / 1.6 < horizons < 1.6
    assert choice.base_lr == pytest.approx(optim.base_lr, rel=0.03)
    assert choice.weight_decay == pytest.approx(optim.weight_decay, rel=1e-6)
    assert choice.warmup_epochs == min(10, optim.epochs / 10)


def test_pairs_of_the_rule() -> None:
    assert rule(IMAGENET_IMAGES, 512, 1000).base_lr == pytest.approx(0.4, rel=0.03)
    assert rule(10_000, 256, 100).base_lr == rule(100_000, 256, 40).base_lr == 2.0
    assert rule(10_000, 256, 100, "sgd").base_lr == 0.125
    assert rule(10_000, 256, 100, "adamw").base_lr == 1e-3
    assert rule(10_000, 64, 100, "adamw").base_lr == 2e-3
    assert rule(4_000, 64, 30).tau_base == pytest.approx(0.95, abs=0.002)  # 1,875 steps


def test_tau_rises_with_the_steps_of_a_run() -> None:
    taus = [rule(images, 64, 100).tau_base for images in (64, 400, 4_000, 50_000, 10**6)]
    assert taus == sorted(taus) and 0.8 <= taus[0] < taus[-1] < 1


def test_an_unknown_recipe_is_refused_with_the_list() -> None:
    with pytest.raises(UserError, match="small-33.*small-32"):
        build("small-33")
