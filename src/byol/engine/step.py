"""One training step, stage by stage: gradients, then the update or nothing at all."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from byol import schedules
from byol.config import Config
from byol.data.loader import Batch
from byol.engine.gradients import Views, gradients, views_of
from byol.learner import Byol, Details
from byol.monitor import Monitor
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
    buffers: list[Tensor] = field(init=False)  # norm statistics
    before: list[Tensor] = field(init=False)  # the same, as they were before the step

    def __post_init__(self) -> None:
        self.buffers = list(self.learner.buffers())
        self.before = [buffer.clone() for buffer in self.buffers]

    def gradients(self, batch: Batch, device: torch.device) -> Found:
        """Forward and backward of a batch; nothing but norm statistics has moved then."""
        return self.gradients_of(views_of(self.config, batch, device))

    def gradients_of(self, views: Views) -> Found:
        """The same for views that are made."""
        torch._foreach_copy_(self.before, self.buffers)
        loss, details, labels = gradients(self.config, self.network, views)
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
        torch._foreach_copy_(self.buffers, self.before)
        self.optimizer.zero_grad(set_to_none=True)


def _finite(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """Whether the loss and every gradient are finite, a scalar on the device."""
    gradients = [w.grad for group in optimizer.param_groups for w in group["params"]]
    norms = torch._foreach_norm([g for g in gradients if g is not None])
    return torch.isfinite(torch.stack([loss, *norms]).sum())
