"""BYOL: two networks that learn from each other's view of an image (paper section 3; official
`byol/byol_experiment.py`).

The online network (encoder, projector, predictor) is trained to predict the target network's
projection of another view; the target (encoder, projector) follows as a moving average. What it
is trained towards instead, in ablations and relatives, stands in `objective.py`.

    features   f(v)            (B, D)   what is kept after training
    projection g(f(v))         (B, P)
    prediction q(g(f(v)))      (B, P)
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from byol.networks.heads import ClosedForm
from byol.networks.spanning import gathered
from byol.objective import BYOL, Objective, Pair, direction_loss, objective_loss


@dataclass(frozen=True)
class Details:
    """What one forward computed, detached; the first axis is the view."""

    features: Tensor  # (2, B, D) of the online encoder
    projections: Tensor  # (2, B, P) of the online projector
    predictions: Tensor  # (2, B, P)
    targets: Tensor  # (2, B, P) what they are to predict: projections of the target network


class OneView(NamedTuple):
    """What the online network made of one view, detached but for the loss."""

    loss: Tensor  # scalar, of this direction alone
    feature: Tensor  # (B, D)
    projection: Tensor  # (B, P)
    prediction: Tensor  # (B, P)


class Byol(nn.Module):
    """The online and the target network.

    Views are (B, C, H, W) in [0, 1]; the encoder normalises them itself and returns (B, D).

    Each view passes through the networks by itself, so that batch norm sees one view's images at
    a time. The target also runs in training mode: it normalises by its batch and has norm buffers
    of its own, which are not averaged from the online network's.
    """

    spans = False  # whether the batch is that of all processes, each of which holds a part

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        predictor: nn.Module,
        target_encoder: nn.Module | None = None,
        target_projector: nn.Module | None = None,
        objective: Objective = BYOL,
    ) -> None:
        """Without target modules the target starts as a copy of the online network.

        The official code initialises it independently: pass a second encoder and projector. An
        objective whose target is the online network itself has no second network.
        """
        super().__init__()
        self.encoder, self.projector, self.predictor = encoder, projector, predictor
        self.objective = objective
        if objective.target == "online":
            target_encoder, target_projector = nn.Identity(), nn.Identity()
        self.target_encoder = copy.deepcopy(encoder) if target_encoder is None else target_encoder
        self.target_projector = (
            copy.deepcopy(projector) if target_projector is None else target_projector
        )
        for parameter in self._target_parameters():
            parameter.requires_grad_(False)
        self._compiled: dict[str, Callable[[Tensor], Tensor]] = {}

    def compile_encoders(self) -> None:
        """From now on `forward` calls compiled encoders. Each is compiled once and called for both
        views; the modules themselves, which others measure and save, stay as they are."""
        for name in ("encoder", "target_encoder"):
            module: Any = getattr(self, name)
            self._compiled[name] = torch.compile(module.forward, dynamic=False)

    def _encode(self, name: str, view: Tensor) -> Tensor:
        """Features (B, D) of one of the two encoders."""
        features: Tensor = self._compiled.get(name, getattr(self, name))(view)
        return features

    def _project(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) and projections (B, P) of the online network."""
        feature = self._encode("encoder", view)
        return feature, self.projector(feature)

    def _online_parameters(self) -> list[Tensor]:
        return [*self.encoder.parameters(), *self.projector.parameters()]

    def _target_parameters(self) -> list[Tensor]:
        return [*self.target_encoder.parameters(), *self.target_projector.parameters()]

    @overload
    def forward(self, view1: Tensor, view2: Tensor, details: Literal[False] = ...) -> Tensor: ...

    @overload
    def forward(
        self, view1: Tensor, view2: Tensor, details: Literal[True]
    ) -> tuple[Tensor, Details]: ...

    def forward(
        self, view1: Tensor, view2: Tensor, details: bool = False
    ) -> Tensor | tuple[Tensor, Details]:
        """The scalar loss: both directions summed, mean over the batch (paper equations 2, 3).

        With `details`, (loss, Details).
        """
        feature1, projection1 = self._project(view1)  # (B, D), (B, P)
        feature2, projection2 = self._project(view2)
        target1, target2 = self._targets((view1, view2), (projection1, projection2))  # (B, P)
        faced1, faced2 = self.objective.faced((target1, target2))  # 2, 1: the other view's
        prediction1 = self._predict(projection1, faced1)  # (B, P)
        prediction2 = self._predict(projection2, faced2)
        predictions, targets = (prediction1, prediction2), (target1, target2)
        if self.spans and self.objective.compares_images:
            predictions, targets = _of_all(predictions), _of_all(targets)
        loss = objective_loss(self.objective, predictions, targets)
        if not details:
            return loss
        return loss, Details(
            features=torch.stack((feature1.detach(), feature2.detach())),
            projections=torch.stack((projection1.detach(), projection2.detach())),
            predictions=torch.stack((prediction1.detach(), prediction2.detach())),
            targets=torch.stack((target1.detach(), target2.detach())),
        )

    def of_view(self, view: Tensor, facing: Tensor, own: Tensor) -> OneView:
        """One direction of the loss, for an objective that is separable: `facing` (B, P) is what
        the view's prediction is to meet, `own` (B, P) its own target (`targets`).

        The sum of both directions is the loss of `forward`. Going backward from the first before
        the second is begun, one view's activations are held at a time instead of both.
        """
        feature, projection = self._project(view)  # (B, D), (B, P)
        prediction = self._predict(projection, facing)  # (B, P)
        seen = feature.detach(), projection.detach(), prediction.detach()
        if self.spans and self.objective.compares_images:
            prediction, facing, own = (gathered(x) for x in (prediction, facing, own))
        return OneView(direction_loss(self.objective, prediction, facing, own), *seen)

    @torch.no_grad()
    def targets(self, views: Pair) -> Pair:
        """The target network's projections (B, P) of two views (B, C, H, W)."""
        feature1, feature2 = (self._encode("target_encoder", view) for view in views)
        return self.target_projector(feature1), self.target_projector(feature2)

    def _targets(self, views: Pair, projections: Pair) -> Pair:
        """The target network's projections, or the online network's own."""
        if self.objective.target == "average":
            return self.targets(views)
        if self.objective.stop_gradient:
            return projections[0].detach(), projections[1].detach()
        return projections

    def _predict(self, projection: Tensor, target: Tensor) -> Tensor:
        """The prediction (B, P); a predictor that is solved for must see what it has to meet."""
        if isinstance(self.predictor, ClosedForm):
            return self.predictor.forward(projection, target, self.spans)
        prediction: Tensor = self.predictor(projection)
        return prediction

    @torch.no_grad()
    def update_target(self, tau: float) -> None:
        """target = tau target + (1 - tau) online, over all parameters and no buffer.

        Once per optimizer step, after it (official `_update_fn`). tau 0 copies, 1 leaves it alone.
        """
        if self.objective.target == "average" and tau < 1:
            torch._foreach_lerp_(self._target_parameters(), self._online_parameters(), 1 - tau)


def _of_all(pair: Pair) -> Pair:
    return gathered(pair[0]), gathered(pair[1])
