"""Is it learning? kNN and an online linear probe where there are labels, the spread of the
projections where there are none, and a verdict.

A collapsed network's *features* look healthy (batch norm keeps their variance), and a low loss is
what collapse has too: the verdict rests on the projections.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from byol import metrics
from byol.learner import Byol, Details

# Thresholds on the projections of held images, in evaluation mode. Over the trial runs of
# docs/results.md ("Collapse"): healthy runs show a deviation from 0.6 up, collapsed ones 0.12 at
# most, and an untrained network 0.15 to 0.23, so no verdict is given before WARM_STEPS.
COLLAPSED_BELOW = 0.3
HEALTHY_ABOVE = 0.5
LOW_RANK = 6.0
WARM_STEPS = 60


@dataclass(frozen=True)
class Verdict:
    """too early, healthy, doubtful or collapsed; the reason has number, threshold, what to try."""

    verdict: str
    reason: str


def judge(step: int, deviation: float, rank: float) -> Verdict:
    """The verdict on projections with this standard deviation (times sqrt(P)) and RankMe."""
    if step < WARM_STEPS:
        return Verdict("too early", f"no verdict is possible before step {WARM_STEPS}")
    if not (math.isfinite(deviation) and math.isfinite(rank)):
        return Verdict(
            "doubtful", "the projections are not finite: lower --base-lr or use --precision fp32"
        )
    if deviation < COLLAPSED_BELOW:
        return Verdict(
            "collapsed",
            f"the projections' deviation is {deviation:.2f}, below {COLLAPSED_BELOW}: all images "
            "look alike to the network; check that a predictor is used, lower --base-lr, raise "
            "--tau-base or --batch-size",
        )
    if deviation < HEALTHY_ABOVE:
        return Verdict(
            "doubtful",
            f"the projections' deviation is {deviation:.2f}, between {COLLAPSED_BELOW} and "
            f"{HEALTHY_ABOVE}: if it falls from one measurement to the next, lower --base-lr or "
            "raise --tau-base",
        )
    if rank < LOW_RANK:
        return Verdict(
            "doubtful",
            f"the projections' effective rank is {rank:.1f}, below {LOW_RANK:g}: the two views "
            "share something easy (a colour, a border, a brightness) that an augmentation should "
            "hide; look at views.png and strengthen the colour jitter",
        )
    return Verdict(
        "healthy",
        f"the projections' deviation is {deviation:.2f} (above {HEALTHY_ABOVE}) and their "
        f"effective rank {rank:.1f} (above {LOW_RANK:g})",
    )


@torch.no_grad()
def extract(
    network: Callable[[Tensor], Tensor], modules: list[nn.Module], batches: Iterator[Tensor]
) -> Tensor:
    """network(images) in evaluation mode for all batches of images in [0, 1], (N, D) float32.

    The modules' training modes are as before afterwards; nothing else is changed, so a training
    run that is measured goes on exactly as one that is not.
    """
    training = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        return torch.cat([network(images).float() for images in batches])
    finally:
        for part, mode in training:
            part.training = mode


@dataclass(frozen=True)
class Held:
    """Images for measuring, as prepared for the encoder (uint8 or floats, (N, C, S, S))."""

    images: Tensor
    labels: Tensor  # (N,) int64, -1 where there is none

    def batches(self, device: torch.device, size: int = 256) -> Iterator[Tensor]:
        """Batches of float images in [0, 1] on the device."""
        for images in self.images.split(size):
            images = images.to(device)
            yield images.float() / 255 if images.dtype == torch.uint8 else images


class Monitor:
    """Measures a learner on held images, and trains a linear classifier beside it.

    bank: images with labels that neighbours are taken from; queries: images that are classified.
    Without labels both serve for the collapse numbers alone.
    """

    def __init__(
        self,
        bank: Held,
        queries: Held,
        classes: int,
        features: int,
        device: torch.device,
        knn_k: int = 20,
        knn_temperature: float = 0.07,
    ) -> None:
        self.bank, self.queries, self.classes = bank, queries, classes
        self.device, self.knn_k, self.knn_temperature = device, knn_k, knn_temperature
        self.probe = nn.Linear(features, max(classes, 1)).to(device)
        nn.init.zeros_(self.probe.weight)
        nn.init.zeros_(self.probe.bias)
        # AdamW rather than the official code's LARS: the same rate serves features of any scale.
        self.optimizer = torch.optim.AdamW(self.probe.parameters(), lr=3e-3, weight_decay=0)

    def observe(self, details: Details, labels: Tensor) -> None:
        """One step of the label monitor: cross-entropy on the detached features of view 1.

        details.features (2, B, D), labels (B,) with -1 where there is none. The learner is not
        touched (the official code trains this classifier inside the method's own step).
        """
        if not self.classes:
            return
        scores = self.probe(details.features[0].float())  # (B, classes)
        loss = F.cross_entropy(scores, labels, ignore_index=-1, reduction="sum")
        known = (labels >= 0).sum().clamp_min(1)
        self.optimizer.zero_grad(set_to_none=True)
        (loss / known).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def measure(self, learner: Byol, step: int) -> tuple[dict[str, float], Verdict]:
        """Collapse numbers, and with labels kNN and probe accuracy in percent."""
        online: list[nn.Module] = [learner.encoder, learner.projector]
        features = extract(learner.encoder, online, self.queries.batches(self.device))  # (N, D)
        z = extract(learner.projector, online, iter(features.split(1024)))  # (N, P)
        numbers = {
            "projection_deviation": metrics.standard_deviation(z),
            "projection_rank": metrics.effective_rank(z),
            "projection_cosine": metrics.mean_cosine(z),
        }
        if self.classes:
            bank = extract(learner.encoder, online, self.bank.batches(self.device))
            labels = self.queries.labels.to(self.device)
            votes = metrics.knn_scores(
                bank,
                self.bank.labels.to(self.device),
                features,
                self.classes,
                self.knn_k,
                self.knn_temperature,
            )
            numbers["knn"] = metrics.accuracy(votes, labels)
            with torch.no_grad():
                numbers["probe"] = metrics.accuracy(self.probe(features), labels)
        verdict = judge(step, numbers["projection_deviation"], numbers["projection_rank"])
        return numbers, verdict

    def state_dict(self) -> dict[str, Any]:
        """The label monitor's weights and optimizer state."""
        return {"probe": self.probe.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.probe.load_state_dict(state["probe"])
        self.optimizer.load_state_dict(state["optimizer"])


def batch_numbers(details: Details) -> Tensor:
    """(3,) of the training batch: online-target cosine, cosine between images, deviation.

    Left on the device; read on logging steps alone.
    """
    z = F.normalize(details.projections[0].float(), dim=1)  # (B, P)
    target = F.normalize(details.targets[1].float(), dim=1)
    p = F.normalize(details.predictions[0].float(), dim=1)
    agreement = (p * target).sum(1).mean()
    n = len(z)
    between = (z.sum(0).square().sum() - n) / (n * (n - 1))
    spread = z.std(0, correction=0).mean() * z.shape[1] ** 0.5
    return torch.stack((agreement, between, spread))
