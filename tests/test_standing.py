"""What a checkpoint holds comes back whole."""

from pathlib import Path
from typing import Any

import torch

from byol.build import build_learner
from byol.config import Config
from byol.engine.optimizer import build_optimizer
from byol.engine.processes import ALONE
from byol.engine.runfolder import RunFolder
from byol.engine.standing import Standing
from byol.monitor import Held, Monitor
from byol.options import with_options


def standing(folder: RunFolder, kept: list[object], seed: int) -> Standing:
    values: dict[str, Any] = {
        "model": "convnet-4", "image_size": 16, "batch_size": 8, "channels": 3, "mean": (0.5,) * 3,
        "std": (0.25,) * 3, "hidden_size": 16, "projection_size": 8, "optimizer": "sgd",
    }  # fmt: skip
    config = with_options(Config(), {**values, "seed": seed})
    learner = build_learner(config)
    optimizer = build_optimizer(config, learner)
    held = Held(torch.zeros(4, 3, 16, 16), torch.arange(4) % 2)
    features = int(learner.encoder.num_features)  # type: ignore[arg-type]
    monitor = Monitor(held, held, 2, features, torch.device("cpu"))
    return Standing(folder, learner, optimizer, monitor, [], kept.append, ALONE)


def test_all_of_it_comes_back(tmp_path: Path) -> None:
    kept: list[object] = []
    with RunFolder(tmp_path / "run") as folder:
        one, two = (standing(folder, kept, seed) for seed in (0, 1))
        assert not two.resume()
        loss, details = one.learner(*torch.rand(2, 8, 3, 16, 16), details=True)
        loss.backward()
        one.optimizer.param_groups[0]["lr"] = 0.1
        one.optimizer.step()
        assert one.monitor and two.monitor
        one.monitor.observe(details, torch.arange(8) % 2)
        vars(one.at).update(step=7, skipped=3, skipped_in_a_row=2, collapsed=True)
        one.bad += ["b.png: broken", "a.png: broken", "b.png: broken"]
        one.save()
        assert kept == [one.learner] and one.bad == ["b.png: broken", "a.png: broken"]
        assert two.resume() and two.at == one.at and two.bad == one.bad
        for name, value in one.learner.state_dict().items():
            assert torch.equal(two.learner.state_dict()[name], value), name
        assert torch.equal(two.monitor.probe.weight, one.monitor.probe.weight)
        states = [each.optimizer.state_dict()["state"] for each in (one, two)]
        assert states[0] and states[0].keys() == states[1].keys()
        for key, buffers in states[0].items():
            assert torch.equal(buffers["momentum_buffer"], states[1][key]["momentum_buffer"])


def test_a_checkpoint_is_due_so_many_seconds_after_the_last(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        one = standing(folder, [], 0)
        one.saved -= 100
        assert one.is_due(90) and not one.is_due(110)
        one.save()
        assert not one.is_due(90)
