"""Fine-tuning: an encoder and a new linear layer, trained whole with labels (paper appendices C.1
and D.3).

Random crop and flip, SGD with Nesterov momentum 0.9, cosine to 0 without warm-up. The paper names
neither schedule nor the linear layer's start; both are those of the official linear evaluation
(`byol/eval_experiment.py`): cosine, and truncated normal weights with bias 0.
"""

import copy
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from byol import metrics, schedules
from byol.data.files import images
from byol.data.source import Source, Subset
from byol.engine.device import autocast
from byol.networks.convnet import init_official_
from byol.tasks.augment import PLAIN, Labelled, random_views
from byol.tasks.subject import Subject, key
from byol.tasks.training import Diverged, remembered, train
from byol.viewspec import ViewSpec


class Classifier(nn.Module):
    """A copy of a subject's encoder and a linear layer on it: images (B, C, S, S) to (B, K)."""

    def __init__(self, subject: Subject, classes: int, seed: int = 0) -> None:
        super().__init__()
        self.subject = subject  # as it was given; its encoder is not trained
        self.encoder = copy.deepcopy(subject.encoder).requires_grad_(True)
        self.head = nn.Linear(subject.encoder.num_features, classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            init_official_(self.head)
        self.to(subject.device)

    def forward(self, images: Tensor) -> Tensor:
        with autocast(self.subject.device, self.subject.precision):
            scores: Tensor = self.head(self.encoder(images))  # (B, K)
        return scores.float()


def norm_momentum(steps_per_epoch: float) -> float:
    """Weight of a batch in the norms' running averages (paper appendix D.3).

    The paper gives the weight of the past, max(1 - 10 / steps_per_epoch, 0.9); torch's `momentum`
    is 1 less that: 0.1, and 10 / steps_per_epoch where an epoch has more than 100 steps.
    """
    return 1 - max(1 - 10 / steps_per_epoch, 0.9)


def steps_of(epochs: float, n: int, batch_size: int) -> int:
    """Steps of `epochs` passes over n images; one at least. Batches hold no more than n images
    (than 2, where there is a single one, as batch norm needs)."""
    return max(1, int(epochs * n / min(batch_size, max(n, 2))))


def finetune(
    subject: Subject,
    source: Source,
    at: np.ndarray | None,
    classes: int,
    *,
    lr: float,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int = 256,
    weight_decay: float = 0.0,
    seed: int = 0,
    views: Sequence[ViewSpec] = (PLAIN,),
    bn_momentum: float | None = None,
    folder: Path | None = None,
    title: str = "fine-tuning",
    say: Callable[[str], None] = lambda line: None,
) -> Classifier:
    """Train encoder and linear layer on the labelled images `at` (all by default) of a source.

    Give `epochs` or `steps`. The rate is `lr` at step 0, whatever the batch, and 0 at the end;
    weight decay falls on every parameter. Fewer images than a batch make smaller batches, which
    `say` hears. bn_momentum: torch's, of every batch norm (None: as the encoder has it).
    With `folder` the training is saved below it, under a name made from its weights, images and
    settings, and goes on from there. Returns the network in evaluation mode; Diverged (a
    UserError) where the loss is not finite.
    """
    part = source if at is None else Subset(source, np.asarray(at))
    n = len(part)
    if n < batch_size:
        say(f"{n} images are fewer than a batch of {batch_size}: batches of {max(n, 2)} instead")
        batch_size = max(n, 2)
    total = steps_of(epochs or 0, n, batch_size) if steps is None else steps
    network = Classifier(subject, classes, seed)
    for norm in network.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and bn_momentum is not None:
            norm.momentum = bn_momentum
    optimizer = torch.optim.SGD(
        network.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=weight_decay
    )
    settings = (classes, lr, total, batch_size, weight_decay, seed, tuple(views), bn_momentum)
    saved = folder / key(subject, part, settings) if folder else None
    feed = random_views(subject, part, batch_size, seed, views)

    def batches(start: int) -> Iterator[Labelled]:
        return feed(start, total)

    def loss(batch: Labelled) -> Tensor:
        return F.cross_entropy(network(batch.images), batch.labels)

    def rate(step: int) -> float:
        return schedules.learning_rate(step, total, 0, 1.0, 256)

    network.train()
    train(network, optimizer, batches, loss, rate, total, batch_size, title, saved)
    return network.eval()


@torch.no_grad()
def accuracy(network: Classifier, source: Source, at: np.ndarray | None = None) -> dict[str, float]:
    """top1, top5 and mean_per_class in percent on centre crops of the images `at` (all)."""
    subject = network.subject
    network.eval()
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch, labels, _ in images(source, *subject.geometry, 256, subject.workers, at):
        x = batch.float() / 255 if batch.dtype == torch.uint8 else batch  # (B, C, S, S)
        x = x.to(subject.device).contiguous(memory_format=torch.channels_last)
        scores = network(x).cpu()  # (B, K)
        found.append((metrics.hits(scores, labels), metrics.hits(scores, labels, 5), labels))
    first, fifth, truth = (torch.cat(parts) for parts in zip(*found, strict=True))
    return metrics.summary(first, fifth, truth)


def trial(
    subject: Subject,
    source: Source,
    at: np.ndarray | None,
    classes: int,
    tests: Mapping[str, Source],
    *,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> dict[str, dict[str, float]]:
    """Fine-tune, then measure on each of `tests`: what a search over settings needs of one of them.

    With `folder` the figures are remembered there, and the training's own files removed, so that
    an interrupted search goes on where it was. A training that diverges scores 0.
    """
    part = source if at is None else Subset(source, np.asarray(at))
    shown = {name: (test.name, len(test)) for name, test in tests.items()}
    name = key(subject, part, (classes, sorted(settings.items()), shown)) if folder else ""
    work = folder / name if folder else None

    def found() -> dict[str, dict[str, float]]:
        try:
            network = finetune(subject, part, None, classes, folder=work, say=say, **settings)
            return {name: accuracy(network, test) for name, test in tests.items()}
        except Diverged as why:
            say(str(why))
            return {name: dict.fromkeys(metrics.SUMMARY, 0.0) for name in tests}

    figures = remembered(folder / f"{name}.json" if folder else None, found)
    if work:
        shutil.rmtree(work, ignore_errors=True)
    return figures
