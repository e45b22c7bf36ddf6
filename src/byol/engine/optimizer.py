"""The optimizer of a configuration, whole in every process or shared out among them."""

from typing import Any

import torch
import torch.distributed as dist

from byol.config import Config
from byol.engine.processes import ALONE, Processes
from byol.learner import Byol
from byol.optim import LARS, param_groups


def build_optimizer(
    config: Config, learner: Byol, processes: Processes = ALONE
) -> torch.optim.Optimizer:
    """LARS, SGD or AdamW over the online network; biases and norms are neither decayed nor
    adapted. Projector and predictor have groups of their own where their rate is another.

    With `shard_optimizer` each process keeps the state of some of the parameters.
    """
    optim = config.optim
    groups = _groups(config, learner)
    kind: type[torch.optim.Optimizer] = torch.optim.AdamW
    options: dict[str, Any] = {}
    if optim.optimizer == "lars":
        kind = LARS
        options = {"momentum": optim.momentum, "trust_coefficient": optim.trust_coefficient}
    else:
        for group in groups:
            del group["adapt"]
    if optim.optimizer == "sgd":
        kind, options = torch.optim.SGD, {"momentum": optim.momentum}
    if config.train.shard_optimizer and processes.world > 1:
        from torch.distributed.optim import ZeroRedundancyOptimizer  # compiles scripts: a second

        return ZeroRedundancyOptimizer(groups, kind, lr=0.0, **options)
    return kind(groups, lr=0.0, **options)  # type: ignore[call-arg]


def _groups(config: Config, learner: Byol) -> list[dict[str, Any]]:
    optim = config.optim
    constant = optim.predictor_schedule == "constant"
    if optim.projector_lr == optim.predictor_lr == 1 and not constant:
        return param_groups(learner, optim.weight_decay)
    groups = []
    for part, scale, is_constant in (
        (learner.encoder, 1.0, False),
        (learner.projector, optim.projector_lr, False),
        (learner.predictor, optim.predictor_lr, constant),
    ):
        for group in param_groups(part, optim.weight_decay):
            groups.append({**group, "lr_scale": scale, "constant_lr": is_constant})
    return groups


def full_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of all parameters, as one process alone would hold it; of a shared optimizer in
    the main process only. Called by all of them."""
    collect = getattr(optimizer, "consolidate_state_dict", None)  # of ZeroRedundancyOptimizer
    if collect is None:
        return optimizer.state_dict()
    collect(to=0)
    return optimizer.state_dict() if dist.get_rank() == 0 else {}
