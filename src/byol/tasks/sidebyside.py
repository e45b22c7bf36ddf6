"""Linear classifiers of several learning rates, trained side by side on the same batches.

SGD with Nesterov momentum 0.9, cosine to 0, on the gradient of the cross-entropy in closed form.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class Heads:
    """Linear classifiers, one for each of R rates, trained on the same batches of the rows `at`."""

    def __init__(
        self,
        labels: Tensor,
        at: Tensor,
        classes: int,
        epochs: int,
        batch_size: int,
        rates: tuple[float, ...],
        seed: int,
        clip: tuple[float, float] | None = None,
    ) -> None:
        self.at, self.batch_size, self.rates, self.seed = at, batch_size, rates, seed
        self.clip, self.step = clip, 0
        self.steps = epochs * math.ceil(len(at) / batch_size)
        self.truth = F.one_hot(labels, classes).float()  # (N, K)
        self.weights = self.bias = torch.empty(0)
        self.momentum: tuple[Tensor, Tensor]

    def _start(self, size: int) -> None:
        classes, device = self.truth.shape[1], self.truth.device
        self.weights = torch.zeros(len(self.rates), size, classes, device=device)  # (R, D, K)
        self.bias = torch.zeros(len(self.rates), 1, classes, device=device)
        self.momentum = (torch.zeros_like(self.weights), torch.zeros_like(self.bias))

    def state(self) -> dict[str, Any]:
        return {
            "weights": self.weights, "bias": self.bias, "momentum": self.momentum, "step": self.step
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        device = self.truth.device
        self.weights, self.bias = state["weights"].to(device), state["bias"].to(device)
        self.momentum = (state["momentum"][0].to(device), state["momentum"][1].to(device))
        self.step = state["step"]

    def scores(self, features: Tensor) -> Tensor:
        """(N, D) to (R, N, K)."""
        return torch.einsum("nd,rdk->rnk", features.float(), self.weights) + self.bias

    def epoch(self, rows: Tensor, epoch: int) -> None:
        """One pass over features (N, D). All rates share one matrix product."""
        if self.step == 0:
            self._start(rows.shape[1])
        peak = torch.tensor(self.rates, device=rows.device)[:, None, None] * self.batch_size / 256
        for batch in batches(self.at.to(rows.device), self.batch_size, self.seed, epoch):
            x = rows[batch].float()  # (b, D)
            rate = peak * (1 + math.cos(math.pi * self.step / self.steps)) / 2  # (R, 1, 1)
            error = gradient(self.scores(x), self.truth[batch], self.clip)  # (R, b, K)
            gradients = (torch.einsum("nd,rnk->rdk", x, error), error.sum(1, keepdim=True))
            parts = zip((self.weights, self.bias), self.momentum, gradients, strict=True)
            for parameter, buffer, slope in parts:
                buffer.mul_(0.9).add_(slope)
                parameter.sub_(rate * (slope + 0.9 * buffer))
            self.step += 1


def gradient(scores: Tensor, truth: Tensor, clip: tuple[float, float] | None = None) -> Tensor:
    """Derivative by scores (R, b, K) of each rate's loss, the mean over b images; truth (b, K)."""
    if clip is None:
        return (scores.softmax(2) - truth) / len(truth)
    alpha, beta = clip
    bounded = alpha * torch.tanh(scores / alpha)
    slope = bounded.softmax(2) - truth + 2 * beta * bounded / truth.shape[1]
    return slope * (1 - (bounded / alpha).square()) / len(truth)


def batches(at: Tensor, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed((seed << 20) + epoch + 1)
    order = torch.randperm(len(at), generator=generator).to(at.device)
    yield from at[order].split(batch_size)
