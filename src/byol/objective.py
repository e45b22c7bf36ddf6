"""What the online network is trained towards: BYOL and its relatives as values of a few fields
(paper section 5 and appendix, "relation to contrastive methods"; RAFT, arXiv 2011.10944).

    loss = teacher * sum over views v of  d(p_v, t_v')  +  align * |n(p_1) - n(p_2)|^2

p are predictions, t targets, v' the other view. d is |n(p) - n(t)|^2 and, with beta, has the
negatives of InfoNCE(alpha, beta).

    method        target   stop_gradient  predictor  beta  else
    BYOL          average  yes            yes        0
    SimCLR        online   no             no         1
    SimSiam       online   yes            yes        0
    MoCo v3       average  yes            yes        1
    Mean Teacher  average  yes            no         0
    BYOL', RAFT   average  yes            yes        0     align, compare same, RAFT: teacher < 0
"""

from dataclasses import dataclass

from torch import Tensor

from byol.losses import info_nce, regression_loss

Pair = tuple[Tensor, Tensor]  # (B, P) of view 1 and of view 2


@dataclass(frozen=True)
class Objective:
    """The defaults are BYOL. byol.config.ObjectiveConfig says what each field means."""

    target: str = "average"  # or "online": the online network's own projections
    stop_gradient: bool = True
    beta: float = 0.0
    alpha: float = 0.1
    loss_normalisation: str = "l2"  # or "layer", "batch", "none"
    directions: str = "both"  # or "one": view 1 predicts view 2, and not the other way
    compare: str = "other"  # or "same": a prediction meets the target of its own view
    teacher: float = 1.0
    align: float = 0.0

    @property
    def compares_images(self) -> bool:
        """Whether an image's loss depends on the others of its batch."""
        return self.beta > 0 or self.loss_normalisation == "batch"

    @property
    def is_separable(self) -> bool:
        """Whether the loss is a sum of one term for each view's predictions, which share nothing
        that has a gradient."""
        return self.target == "average" and self.directions == "both" and not self.align

    def faced(self, targets: Pair) -> Pair:
        """The targets that the predictions of view 1 and of view 2 meet."""
        return targets if self.compare == "same" else (targets[1], targets[0])


BYOL = Objective()


def objective_loss(objective: Objective, predictions: Pair, targets: Pair) -> Tensor:
    """The scalar to be minimised, mean over the batch; gradients are not stopped here."""
    distances = [
        _distance(objective, p, facing, own)
        for p, facing, own in zip(predictions, objective.faced(targets), targets, strict=True)
    ]  # (B,) each
    per_image = distances[0] if objective.directions == "one" else distances[0] + distances[1]
    if objective.teacher != 1:
        per_image = objective.teacher * per_image
    if objective.align:
        between = regression_loss(*predictions, objective.loss_normalisation)  # (B,)
        per_image = per_image + objective.align * between
    return per_image.mean()


def direction_loss(objective: Objective, p: Tensor, facing: Tensor, own: Tensor) -> Tensor:
    """One view's part of `objective_loss` where that is separable: scalar."""
    return objective.teacher * _distance(objective, p, facing, own).mean()


def _distance(objective: Objective, p: Tensor, facing: Tensor, own: Tensor) -> Tensor:
    if objective.beta:
        return info_nce(p, facing, own, objective.alpha, objective.beta)
    return regression_loss(p, facing, objective.loss_normalisation)
