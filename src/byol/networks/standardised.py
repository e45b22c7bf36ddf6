"""Weight standardisation: layers whose weights are used with mean 0 and deviation 1 over each
output's inputs (arXiv 1903.10520; with group norm it replaces batch norm in arXiv 2010.10241).

The parameters are the raw weights under their usual names, so state dicts keep their form.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def standardise(weight: Tensor) -> Tensor:
    """(w - mean) / sqrt(var + 1e-10) over all axes but the first, the variance being biased."""
    axes = list(range(1, weight.ndim))
    var, mean = torch.var_mean(weight, axes, correction=0, keepdim=True)  # (out, 1, ...)
    return (weight - mean) * (var + 1e-10).rsqrt()


class StandardisedConv2d(nn.Conv2d):
    """Conv2d with standardised weights."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, standardise(self.weight), self.bias)


class StandardisedLinear(nn.Linear):
    """Linear with standardised weights."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, standardise(self.weight), self.bias)
