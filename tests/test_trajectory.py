"""Whole training steps against the official code: loss, gradients, LARS, target update."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from byol import schedules
from byol.learner import Byol, Details
from byol.metrics import accuracy
from byol.networks.encoder import Encoder
from byol.networks.heads import mlp
from byol.networks.norm import DebiasedBatchNorm
from byol.networks.resnet import ResNet
from byol.optim import LARS, param_groups
from tests.haiku import (
    Tree,
    export_parameters,
    export_state,
    load_haiku_,
    pack,
    torso_prefix,
    unpack,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLOSE: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-8}


class Run:
    """A learner, and a linear classifier on the detached features of view 1, under one LARS.

    The recorded loss, gradient norm and online tree hold the classifier. The target's predictor
    and classifier, which we do not have, are kept as the moving averages that they are.
    """

    def __init__(self, data: Any, case: str, dtype: torch.dtype) -> None:
        self.data, self.case = data, case
        self.names, self.states = data[f"{case}/param_names"], data[f"{case}/state_names"]
        self.prefix = torso_prefix(self.names)
        size = {
            key: int(self("config/" + key))
            for key in ("num_classes", "projector_hidden_size", "projector_output_size",
                        "predictor_hidden_size", "max_steps", "warmup_steps", "batch_size")
        }  # fmt: skip
        self.size, d_out = size, size["projector_output_size"]
        encoder, target_encoder = self._encoder(), self._encoder()
        features = encoder.num_features
        heads = [
            mlp(d_in, hidden, d_out, norm=DebiasedBatchNorm)
            for d_in, hidden in (
                (features, size["projector_hidden_size"]),
                (features, size["projector_hidden_size"]),
                (d_out, size["predictor_hidden_size"]),
            )
        ]
        self.learner = Byol(encoder, heads[0], heads[2], target_encoder, heads[1])
        self.classifier = nn.Linear(features, size["num_classes"])
        self.online = {
            self.prefix: encoder.module,
            "projector": heads[0],
            "predictor": heads[2],
            "classifier": self.classifier,
        }
        self.target = {self.prefix: target_encoder.module, "projector": heads[1]}
        online, target = self.tree("init/online"), self.tree("init/target")
        self._load(self.online, online, dtype)
        self._load(self.target, target, dtype)
        self.averaged = {n: v for n, v in target.items() if not n.startswith(tuple(self.target))}
        self.learner.to(dtype)
        for part in (encoder, target_encoder):  # not rounded to float32 on the way
            part.mean, part.std = torch.tensor(MEAN, dtype=dtype), torch.tensor(STD, dtype=dtype)
        self.optimizer = LARS(
            param_groups(
                nn.ModuleList([self.learner, self.classifier]), float(self("config/weight_decay"))
            ),
            lr=0.0,
            momentum=float(self("config/momentum")),
            trust_coefficient=float(self("config/eta")),
        )
        self.dtype, self.compared = dtype, set[str]()

    def __call__(self, key: str) -> Any:
        return self.data[f"{self.case}/{key}"]

    def tree(self, key: str) -> Tree:
        return unpack(self.names, self("param_shapes"), self(key))

    def _encoder(self) -> Encoder:
        torso = ResNet(
            self("config/blocks_per_group").tolist(),
            self("config/channels_per_group").tolist(),
            bool(self("config/bottleneck")),
            padding="same",
            norm=DebiasedBatchNorm,
            group0_projection=True,
        )
        return Encoder(torso, MEAN, STD)

    @staticmethod
    def _load(modules: dict[str, nn.Module], tree: Tree, dtype: torch.dtype) -> None:
        for prefix, module in modules.items():
            load_haiku_(module.to(dtype), tree, prefix)

    def view(self, step: int, which: int) -> Tensor:
        pixels = torch.from_numpy(self(f"step{step}/view{which}")).permute(0, 3, 1, 2)
        return pixels.to(self.dtype) / 255

    def labels(self, step: int) -> Tensor:
        return torch.from_numpy(self(f"step{step}/labels")).long()

    def losses(self, step: int) -> tuple[Tensor, Tensor, Tensor, Details]:
        """Regression loss, classification loss, logits; gradients of the sum are left behind."""
        self.optimizer.zero_grad()
        loss, details = self.learner(self.view(step, 1), self.view(step, 2), details=True)
        logits = self.classifier(details.features[0])
        classification = nn.functional.cross_entropy(logits, self.labels(step))
        (loss + classification).backward()
        return loss.detach(), classification.detach(), logits.detach(), details

    def update(self, step: int) -> tuple[float, float]:
        lr = schedules.learning_rate(
            step,
            self.size["max_steps"],
            self.size["warmup_steps"],
            float(self("config/base_learning_rate")),
            self.size["batch_size"],
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        tau = schedules.tau(step, self.size["max_steps"], float(self("config/base_target_ema")))
        self.learner.update_target(tau)
        online = self.parameters(self.online)
        for name, value in self.averaged.items():
            self.averaged[name] = value + (1 - tau) * (online[name].reshape(value.shape) - value)
        return lr, tau

    @staticmethod
    def parameters(
        modules: dict[str, nn.Module], read: Callable[[nn.Parameter], Tensor | None] = lambda p: p
    ) -> Tree:
        tree: Tree = {}
        for prefix, module in modules.items():
            tree.update(export_parameters(module, prefix, read))
        return tree

    def momentum(self, parameter: nn.Parameter) -> Tensor | None:
        buffer = self.optimizer.state[parameter]["momentum_buffer"]
        assert isinstance(buffer, Tensor)
        return buffer


@dataclass(frozen=True)
class Compare:
    """Ours against what was recorded of one step, where it was."""

    run: Run
    step: int

    def __call__(self, name: str, ours: Any) -> None:
        key = f"step{self.step}/{name}"
        if f"{self.run.case}/{key}" in self.run.data:
            self.run.compared.add(key)
            np.testing.assert_allclose(ours, self.run(key), err_msg=key, **CLOSE)

    def target_state(self) -> None:
        """But for the predictor's, which the target does not have here."""
        key = f"step{self.step}/target_state"
        if f"{self.run.case}/{key}" not in self.run.data:
            return
        self.run.compared.add(key)
        official = unpack(self.run.states, self.run("state_shapes"), self.run(key))
        ours = _states(self.run.target)
        names = [name for name in official if not name.startswith("predictor")]
        assert {name.split("/")[0] for name in names} == set(self.run.target)
        np.testing.assert_allclose(pack(names, ours), pack(names, official), **CLOSE)


def _states(modules: dict[str, nn.Module]) -> Tree:
    tree: Tree = {}
    for prefix, module in modules.items():
        tree.update(export_state(module, prefix))
    return tree


@pytest.mark.parametrize(("case", "steps"), [("A", 6), ("B", 5)])
def test_every_step_in_float64(case: str, steps: int, golden: Callable[[str], Any]) -> None:
    run = Run(golden("trajectory"), case, torch.float64)
    assert int(run("config/steps")) == steps
    for step in range(steps):
        same = Compare(run, step)
        loss, classification, logits, details = run.losses(step)
        same("repr_loss", loss)
        same("classif_loss", classification)
        same("loss", loss + classification)
        same("top1_accuracy", accuracy(logits, run.labels(step)) / 100)
        same("top5_accuracy", accuracy(logits, run.labels(step), 5) / 100)
        same("online_out/logits_view1", logits)
        for v in (0, 1):
            same(f"online_out/projection_view{v + 1}", details.projections[v])
            same(f"online_out/prediction_view{v + 1}", details.predictions[v])
            same(f"target_out/projection_view{v + 1}", details.targets[v])
        gradient = run.parameters(run.online, lambda p: p.grad)
        norms = np.array([np.linalg.norm(gradient[str(name)]) for name in run.names])
        same("grad", pack(run.names, gradient))
        same("grad_norms", norms)
        same("grad_global_norm", np.linalg.norm(norms))
        lr, tau = run.update(step)
        same("learning_rate", lr)
        same("tau", tau)
        same("online", pack(run.names, run.parameters(run.online)))
        same("target", pack(run.names, {**run.averaged, **run.parameters(run.target)}))
        same("online_state", pack(run.states, _states(run.online)))
        same.target_state()
        same("momentum", pack(run.names, run.parameters(run.online, run.momentum)))
    recorded = {key.removeprefix(f"{case}/") for key in run.data if key.startswith(f"{case}/step")}
    given = {f"step{step}/{name}" for step in range(steps) for name in ("view1", "view2", "labels")}
    assert run.compared == recorded - given


@pytest.mark.parametrize("case", ["A", "B"])
def test_first_steps_in_float32(case: str, golden: Callable[[str], Any]) -> None:
    """Rounding is amplified tenfold a step, so three steps are compared."""
    run = Run(golden("trajectory"), case, torch.float32)
    for step in range(3):
        loss, classification, _, _ = run.losses(step)
        np.testing.assert_allclose(loss, run(f"step{step}/repr_loss"), rtol=0, atol=2e-4)
        np.testing.assert_allclose(
            classification, run(f"step{step}/classif_loss"), rtol=0, atol=2e-4
        )
        gradient = run.parameters(run.online, lambda p: p.grad)
        norms = [np.linalg.norm(gradient[str(name)]) for name in run.names]
        official = run(f"step{step}/grad_norms")
        np.testing.assert_allclose(norms, official, rtol=1e-3, atol=1e-5 * official.max())
        run.update(step)
