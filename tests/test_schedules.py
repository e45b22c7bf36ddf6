"""Learning rate and tau against the official code, and the published settings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from byol.recipes import IMAGENET_IMAGES, build
from byol.schedules import learning_rate, target_decay, tau


@pytest.mark.parametrize("case", range(6))
def test_learning_rate(case: int, golden: Callable[[str], Any]) -> None:
    data = golden("schedules")
    total, warmup, batch = (
        int(data[f"lr{case}/{name}"]) for name in ("total_steps", "warmup_steps", "batch_size")
    )
    base = float(data[f"lr{case}/base_learning_rate"])
    ours = [learning_rate(int(k), total, warmup, base, batch) for k in data[f"lr{case}/steps"]]
    np.testing.assert_allclose(ours, data[f"lr{case}/lr"], rtol=1e-12, atol=1e-15)
    peak = base * batch / 256
    np.testing.assert_allclose(ours, data[f"lr{case}/lr_float32"], rtol=0, atol=3e-7 * peak)


@pytest.mark.parametrize("case", range(6))
def test_tau(case: int, golden: Callable[[str], Any]) -> None:
    data = golden("schedules")
    total, base = int(data[f"tau{case}/total_steps"]), float(data[f"tau{case}/base"])
    ours = [tau(int(k), total, base) for k in data[f"tau{case}/steps"]]
    np.testing.assert_allclose(ours, data[f"tau{case}/tau"], rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(ours, data[f"tau{case}/tau_float32"], rtol=0, atol=2e-7)


def test_published_runs(golden: Callable[[str], Any]) -> None:
    for epochs, batch, steps, warmup, base_lr, decay, tau_base in golden("schedules")["presets"]:
        config, _ = build(f"paper-{epochs:.0f}", batch_size=int(batch))
        assert config.steps(IMAGENET_IMAGES) == (steps, warmup)
        optim = config.optim
        assert (optim.base_lr, optim.weight_decay, optim.tau_base) == (base_lr, decay, tau_base)


def test_hand_numbers() -> None:
    rate = [learning_rate(k, 312_784, 3_127, 0.2, 4096) for k in (0, 1, 3_127, 156_392)]
    assert rate == pytest.approx([0, 1.0233451e-3, 3.2, 1.6253786], rel=1e-7)
    assert learning_rate(312_784, 312_784, 3_127, 0.2, 4096) == 0
    assert tau(0, 312_784, 0.996) == 0.996
    assert tau(156_392, 312_784, 0.996) == pytest.approx(0.998, abs=1e-12)
    assert tau(312_784, 312_784, 0.996) == tau(400_000, 312_784, 0.996) == 1


def test_a_run_that_is_all_warm_up() -> None:
    assert [learning_rate(k, 4, 4, 1.0, 256) for k in range(4)] == [0, 0.25, 0.5, 0.75]
    assert learning_rate(4, 4, 4, 1.0, 256) == 0


def test_the_decay_of_the_target() -> None:
    cosine = [target_decay(k, 10, 0.9) for k in range(11)]
    assert cosine == [tau(k, 10, 0.9) for k in range(11)] and cosine[-1] == 1
    for constant in (0.0, 0.9, 1.0):
        assert {target_decay(k, 10, constant, "constant") for k in range(11)} == {constant}
    assert [target_decay(k, 10, 0.9, copy_every=1) for k in range(3)] == [0, 0, 0]
    assert [target_decay(k, 9, 0.9, copy_every=2) for k in range(5)] == [1, 0, 1, 0, 1]
