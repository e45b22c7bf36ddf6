"""L2-regularised logistic regression over a whole path of strengths (paper appendix D.2).

For each C: C * (sum of the losses) + half the sum of squared weights, the bias free, as in
scikit-learn; the 45 values are C in logspace(-6, 5, 45). One class an image: softmax and
cross-entropy; several (multi-label): one binary regression a class.

What makes it quick. The optimum does not depend on where the features are centred or how their
axes are turned; on the axes of their covariance the curvature is nearly diagonal and known, and
L-BFGS that begins with it needs few steps. Each strength begins where the line through the two
before it points. Scores are linear along a direction: a step costs two matrix products, whatever
its search. One column an image: softmax over the first axis of (K, N) runs along memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

STRENGTHS: tuple[float, ...] = tuple(
    torch.logspace(-6, 5, 45, dtype=torch.float64).tolist()  # paper appendix D.2
)
_MEMORY = 10  # pairs of steps that L-BFGS remembers
_MOST_STEPS, _MOST_TRIES = 1000, 20
_FLAT = 0.5  # the slope that a search may leave, of the one it began with (strong Wolfe)

Pairs = list[tuple[Tensor, Tensor, Tensor]]  # move, change of the gradient, 1 / their product


@dataclass(frozen=True)
class Regression:
    """Scores (N, K) are features (N, D) @ weights (D, K) + bias (K,)."""

    weights: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """(N, D) to (N, K): logits."""
        return torch.addmm(self.bias, features, self.weights)


def path(
    features: Tensor,
    targets: Tensor,
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
    tolerance: float = 1e-7,
) -> Iterator[tuple[float, Regression]]:
    """(C, the regression at C) for each strength, from the smallest C to the largest.

    features (N, D), floats, on any device: computed in their own precision. targets: (N,) int64
    in [0, K), or for multi-label (N, K) of 1 (is there), 0 (is not) and -1 (left out).
    A strength is done when a further step would lower the mean loss by less than `tolerance`
    nats, and the objective by less than 0.001 %.
    """
    columns, axes, mean, spread = _turned(features)
    losses = _Losses(targets, classes, features)
    theta = before = columns.new_zeros(classes, len(columns))  # (K, r + 1), the last is the bias
    for strength in sorted(strengths):
        problem = _Problem(columns, spread, losses, strength)
        before, theta = theta, problem.minimise(2 * theta - before, tolerance)
        weights = theta[:, :-1] @ axes  # (K, D)
        yield strength, Regression(weights.T, theta[:, -1] - weights @ mean)


def fit(features: Tensor, targets: Tensor, classes: int, strength: float) -> Regression:
    """The regression at C = strength, reached along the path of the weaker ones."""
    weaker = [each for each in STRENGTHS if each < strength]
    *_, (_, last) = path(features, targets, classes, [*weaker, strength])
    return last


def _turned(features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centred features on the r axes of their covariance, then ones (r + 1, N); the axes (r, D),
    the mean (D,), and the mean squares (r + 1,).

    r is D, or N where there are fewer images: no weight leaves what they span.
    """
    n, dimensions = features.shape
    mean = features.mean(0)
    columns = (features - mean).T  # (D, N)
    basis = torch.linalg.qr(columns).Q.T if dimensions > n else None  # (N, D)
    columns = columns if basis is None else basis @ columns
    spread, turn = torch.linalg.eigh((columns @ columns.T).double() / n)
    axes = turn.T.to(columns.dtype)
    columns = torch.cat([axes @ columns, columns.new_ones(1, n)])
    spread = torch.cat([spread.clamp_min(0), spread.new_ones(1)]).to(columns.dtype)
    return columns, axes if basis is None else axes @ basis, mean, spread


class _Losses:
    """The mean loss of scores (K, N)."""

    def __init__(self, targets: Tensor, classes: int, features: Tensor) -> None:
        self.n = len(features)
        self.multilabel = targets.ndim == 2
        truth = (targets if self.multilabel else F.one_hot(targets, classes)).T  # (K, N)
        self.truth = truth.clamp_min(0).to(features.dtype).contiguous()
        self.known = (truth >= 0).to(features.dtype).contiguous()

    def __call__(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and its gradient (K, N)."""
        if self.multilabel:
            each = F.softplus(scores).sub_(scores * self.truth).mul_(self.known)
            error = scores.sigmoid().sub_(self.truth).mul_(self.known)
            return each.sum() / self.n, error.div_(self.n)
        shifted = scores - scores.amax(0)
        p = shifted.exp()
        total = p.sum(0)  # (N,)
        value = (total.log().sum() - (shifted * self.truth).sum()) / self.n
        return value, p.div_(total).sub_(self.truth).div_(self.n)

    def curvature(self, error: Tensor) -> Tensor:
        """Mean of p (1 - p) over classes and images, from a gradient (K, N)."""
        p = error * self.n + self.truth * self.known
        return (p * (1 - p)).mean()


class _Problem:
    """Mean loss plus |weights|^2 / (2 C N), a function of theta (K, r + 1)."""

    def __init__(self, columns: Tensor, spread: Tensor, losses: _Losses, strength: float) -> None:
        self.columns, self.spread, self.losses = columns, spread, losses
        self.decay = torch.full_like(spread, 1 / (strength * columns.shape[1]))  # (r + 1,)
        self.decay[-1] = 0

    def minimise(self, theta: Tensor, tolerance: float) -> Tensor:
        """theta (K, r + 1) of the least value, by L-BFGS from a first guess."""
        scores = theta @ self.columns  # (K, N)
        loss, error = self.losses(scores)
        value = loss + (self.decay * theta.square()).sum() / 2
        gradient = torch.addmm(self.decay * theta, error, self.columns.T)
        curvature = self.losses.curvature(error) * self.spread + self.decay
        curvature = curvature.clamp_min(float(curvature.max()) * 1e-12)
        pairs: Pairs = []
        for _ in range(_MOST_STEPS):
            direction = _direction(gradient, pairs, curvature)
            gain = -float((direction * gradient).sum()) / 2
            if gain <= min(tolerance, 1e-5 * float(value)):
                break
            step, value, scores, error = self._search(theta, direction, scores, -2 * gain)
            moved = step * direction
            theta = theta + moved
            after = torch.addmm(self.decay * theta, error, self.columns.T)
            change, gradient = after - gradient, after
            product = (moved * change).sum()
            if not product > 0:  # below the precision of the features
                break
            pairs = [*pairs[1 - _MEMORY :], (moved, change, 1 / product)]
        return theta

    def _search(
        self, theta: Tensor, direction: Tensor, scores: Tensor, slope: float
    ) -> tuple[float, Tensor, Tensor, Tensor]:
        """A step at which the slope is nearly flat; the value, scores and error there.

        Regula falsi on the slope, which only grows along a line as the problem is convex.
        """
        along = direction @ self.columns  # (K, N)
        decay = self.decay
        penalty = torch.stack([theta.square(), theta * direction, direction.square()])
        still, linear, square = (penalty * decay).sum((1, 2)).tolist()
        step, low, high, low_slope = 1.0, 0.0, float("inf"), slope
        for _ in range(_MOST_TRIES):
            moved = torch.add(scores, along, alpha=step)
            value, error = self.losses(moved)
            here = float((error * along).sum()) + linear + step * square
            if abs(here) <= -_FLAT * slope:
                break
            if here > 0:
                high, high_slope = step, here
            else:
                low, low_slope = step, here
            if high == float("inf"):
                step *= 4
            else:
                guess = low - low_slope * (high - low) / (high_slope - low_slope)
                margin = 0.1 * (high - low)
                step = min(max(guess, low + margin), high - margin)
        return step, value + still / 2 + step * linear + step**2 * square / 2, moved, error


def _direction(gradient: Tensor, pairs: Pairs, curvature: Tensor) -> Tensor:
    """L-BFGS's direction (Nocedal and Wright, algorithm 7.4) from a diagonal first curvature."""
    direction = -gradient
    shares = []
    for moved, change, inverse in reversed(pairs):
        shares.append(inverse * (moved * direction).sum())
        direction = direction - shares[-1] * change
    direction = direction / curvature
    if pairs:  # the scale of the diagonal, by the last step
        moved, change, inverse = pairs[-1]
        direction = direction / (inverse * (change.square() / curvature).sum())
    for (moved, change, inverse), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - inverse * (change * direction).sum()) * moved
    return direction
