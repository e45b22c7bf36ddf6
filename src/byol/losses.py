"""The loss of BYOL: squared distance of normalised vectors (paper section 3.1, equation 2;
official `byol/utils/helpers.py`)."""

import torch
from torch import Tensor


def l2_normalize(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """x / sqrt(max(sum x^2, epsilon)) over the last axis, (..., D) to (..., D).

    The floor is on the *squared* norm, as in the official code: vectors shorter than 1e-6 are not
    stretched to length 1, and 0 stays 0.
    """
    return x * x.square().sum(-1, keepdim=True).clamp_min(epsilon).rsqrt()


def regression_loss(p: Tensor, z: Tensor) -> Tensor:
    """Squared distance of normalised predictions and projections, (..., D) to (...), in [0, 4].

    Equal to 2 - 2 cos(p, z) for vectors longer than 1e-6. Half-precision input is computed in
    float32. No gradient is stopped here: pass z detached.
    """
    if p.dtype in (torch.float16, torch.bfloat16):
        p, z = p.float(), z.float()
    return (l2_normalize(p) - l2_normalize(z)).square().sum(-1)
