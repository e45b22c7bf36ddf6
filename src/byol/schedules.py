"""Learning rate and tau as functions of the step (paper sections 3.2 and 3.3; official
`byol/utils/schedules.py`). Floats in, float out."""

import math


def learning_rate(
    k: int, total_steps: int, warmup_steps: int, base_lr: float, batch_size: int
) -> float:
    """Learning rate of step k (from 0): linear warm-up from 0, then a cosine to 0.

    The peak is base_lr * batch_size / 256, reached at k = warmup_steps. Step 0 of a warm-up has
    rate 0: it moves no weight, but its gradient enters the momentum.
    """
    peak = base_lr * batch_size / 256
    if k < warmup_steps:
        return peak * k / warmup_steps
    decay_steps = total_steps - warmup_steps
    progress = min(k - warmup_steps, decay_steps) / decay_steps if decay_steps else 1.0
    return peak * (1 + math.cos(math.pi * progress)) / 2


def tau(k: int, total_steps: int, tau_base: float) -> float:
    """Decay of the target's moving average after step k (from 0): from tau_base up to 1."""
    return 1 - (1 - tau_base) * (1 + math.cos(math.pi * min(k, total_steps) / total_steps)) / 2


def target_decay(
    k: int, total_steps: int, tau_base: float, schedule: str = "cosine", copy_every: int = 0
) -> float:
    """tau after step k (from 0): by `schedule`, "cosine" or "constant".

    With copy_every = n the target is a copy made after every n-th step and untouched between:
    tau is 0 after steps n - 1, 2n - 1, ... and 1 after all others.
    """
    if copy_every:
        return 1.0 if (k + 1) % copy_every else 0.0
    return tau_base if schedule == "constant" else tau(k, total_steps, tau_base)
