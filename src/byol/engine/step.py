"""One training step, stage by stage: gradients, then the update or nothing at all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from byol import schedules
from byol.config import Config
from byol.engine.captured import Captured
from byol.engine.gradients import Views, gradients
from byol.learner import Byol, Details
from byol.monitor import Monitor
from byol.networks.encoder import CONVNET, RESNET
from byol.networks.heads import ClosedForm
from byol.optim import set_learning_rate


class Found(NamedTuple):
    """What the forward and backward pass of a step leave behind besides the gradients."""

    loss: Tensor  # scalar, of this process's images
    details: Details  # of the last piece
    labels: Tensor  # (b,) of the last piece, on the device
    is_bad: Tensor  # scalar on the device: the loss or a gradient is not finite


@dataclass
class Step:
    """The learner and what moves it. `network` is the learner as it is called."""

    config: Config
    learner: Byol
    network: nn.Module
    optimizer: torch.optim.Optimizer
    monitor: Monitor | None
    total_steps: int
    warmup_steps: int
    statistics: list[list[Tensor]] = field(init=False)  # norm buffers, one list a type
    before: list[list[Tensor]] = field(init=False)  # the same, as they were before the step

    def __post_init__(self) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in self.learner.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self.statistics = list(by_type.values())
        self.before = [[buffer.clone() for buffer in buffers] for buffers in self.statistics]
        self._whole: Callable[..., Found] = self._of_one_piece
        if is_captured(self.config, self.learner):
            trained = [w for w in self.learner.parameters() if w.requires_grad]
            self._whole = Captured(self._of_one_piece, trained)

    def gradients(self, views: Views) -> Found:
        """Forward and backward of a batch; nothing but norm statistics has moved then."""
        if self.config.optim.accumulation == 1:
            ((view1, view2, labels),) = views
            return self._whole(view1, view2, labels)
        return self._of_pieces(views)

    def _of_one_piece(self, view1: Tensor, view2: Tensor, labels: Tensor) -> Found:
        return self._of_pieces([(view1, view2, labels)])

    def _of_pieces(self, views: Views) -> Found:
        _copy(self.before, self.statistics)
        loss, details, labels = gradients(self.config, self.learner, self.network, views)
        return Found(loss, details, labels, ~_finite(loss, self.optimizer))

    def rates(self, step: int) -> tuple[float, float]:
        """The step's learning rate, which the optimizer is given, and its tau."""
        optim, objective, total = self.config.optim, self.config.objective, self.total_steps
        size = optim.batch_size
        lr = schedules.learning_rate(step, total, self.warmup_steps, optim.base_lr, size)
        tau = schedules.target_decay(
            step, total, optim.tau_base, objective.tau_schedule, objective.copy_every
        )
        set_learning_rate(self.optimizer, lr, optim.base_lr * size / 256)
        return lr, tau

    def update(self, found: Found, tau: float) -> None:
        """Weights, target and label monitor follow."""
        self.optimizer.step()
        self.learner.update_target(tau)
        if self.monitor:
            self.monitor.observe(found.details, found.labels)
        self.optimizer.zero_grad(set_to_none=True)

    def discard(self) -> None:
        """The step leaves no trace."""
        _copy(self.statistics, self.before)
        self.optimizer.zero_grad(set_to_none=True)


def is_captured(config: Config, learner: Byol) -> bool:
    """Whether a step is replayed as a CUDA graph: as asked for, else with small images on a GPU.

    Never on a CPU, in several processes or pieces, nor with a predictor that is solved for.
    """
    train, model = config.train, config.network.model
    device = next(learner.parameters()).device
    solves = isinstance(learner.predictor, ClosedForm)  # which waits for the solution's verdict
    is_alone = not learner.spans and config.optim.accumulation == 1
    able = device.type == "cuda" and is_alone and not solves
    if train.cuda_graph is not None or not able:
        return able and bool(train.cuda_graph)
    ours = RESNET.fullmatch(model) or CONVNET.fullmatch(model)
    return bool(ours) and config.data.image_size <= 64 and not train.checkpointing


def _copy(targets: list[list[Tensor]], sources: list[list[Tensor]]) -> None:
    for target, source in zip(targets, sources, strict=True):
        torch._foreach_copy_(target, source)


def _finite(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """Whether the loss and every gradient are finite, a scalar on the device."""
    gradients = [w.grad for group in optimizer.param_groups for w in group["params"]]
    norms = torch._foreach_norm([g for g in gradients if g is not None])
    return torch.isfinite(torch.stack([loss, *norms]).sum())
