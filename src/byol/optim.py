"""LARS as the official code computes it (paper section 3.3; official `byol/utils/optimizers.py`).

For each adapted tensor w with gradient g: u = g + weight_decay w, scaled by
trust_coefficient |w| / |u| (by 1 where either norm is 0); m = momentum m + u; w = w - lr m. The
rate is applied after the momentum, so a buffer that was filled at an old rate is applied at the
new one. There is no epsilon, no clipping and no dampening, and the host is never asked.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling. Parameter groups carry `weight_decay` and `adapt`.

    `adapt=False` turns the trust ratio off for a group: plain SGD with momentum.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust_coefficient": trust_coefficient,
                "adapt": True,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every tensor that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            if not weights:
                continue
            for w in weights:
                if "momentum_buffer" not in self.state[w]:
                    self.state[w]["momentum_buffer"] = torch.zeros_like(w)
            buffers = [self.state[w]["momentum_buffer"] for w in weights]
            gradients = [w.grad for w in weights]
            updates = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
            if group["adapt"]:
                _scale_(updates, weights, group["trust_coefficient"])
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates)
            torch._foreach_add_(weights, buffers, alpha=-group["lr"])
        return loss


def _scale_(updates: list[Tensor], weights: list[Tensor], trust: float) -> None:
    """Each update times trust * |weight| / |update|, times 1 where either norm is 0."""
    weight_norm = torch.stack(torch._foreach_norm(weights))  # (tensors,)
    update_norm = torch.stack(torch._foreach_norm(updates))  # (tensors,)
    usable = (weight_norm > 0) & (update_norm > 0)
    ratio = torch.where(usable, trust * weight_norm / update_norm, 1.0)  # (tensors,)
    torch._foreach_mul_(updates, list(ratio.unbind()))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float, peak: float) -> None:
    """Give every group the rate `lr` times its `lr_scale` (1 where it has none); groups with
    `constant_lr` take the schedule's `peak` instead."""
    for group in optimizer.param_groups:
        rate = peak if group.get("constant_lr") else lr
        group["lr"] = rate * group.get("lr_scale", 1.0)


def param_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The adapted group and the excluded one, for LARS, SGD or AdamW.

    Excluded from decay and adaptation are biases and the parameters of norm layers (official rule:
    tensors named `b` and modules whose name contains "norm"). As PyTorch names modules freely, the
    rule here is: parameters named `bias`, and every parameter of at most one dimension. Frozen
    parameters are left out.
    """
    adapted: list[Tensor] = []
    excluded: list[Tensor] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_excluded = parameter.ndim <= 1 or name.rsplit(".", 1)[-1] == "bias"
            (excluded if is_excluded else adapted).append(parameter)
    return [
        {"params": adapted, "weight_decay": weight_decay, "adapt": True},
        {"params": excluded, "weight_decay": 0.0, "adapt": False},
    ]
