"""Linear evaluation on frozen features (paper appendix C.1; official `byol/eval_experiment.py`).

SGD with Nesterov momentum 0.9, no weight decay, cosine to 0, base learning rates multiplied by
batch / 256. All rates are trained side by side on the same batches; the best on a held-out part
of the training data is trained again on all of it. The paper sweeps the five values from 0.05 to
0.4 for ImageNet features; the wider list makes raw pixels and other encoders comparable.

The improved variant (same appendix, table 7) trains on the views of the pretraining and bounds
the logits x: with u = alpha tanh(x / alpha) the loss is cross-entropy(u) + beta mean(u^2).
"""

import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byol import metrics
from byol.data.prepared import Prepared
from byol.data.source import Subset
from byol.engine import checkpoint
from byol.errors import UserError
from byol.protocols import Linear
from byol.tasks.augment import PLAIN
from byol.tasks.extraction import frozen, frozen_pixels
from byol.tasks.features import augmented, baseline, open_labelled
from byol.tasks.sidebyside import Heads
from byol.tasks.subject import Subject, key
from byol.tasks.training import SAVE_SECONDS, watched
from byol.viewspec import T_PRIME, T, ViewSpec

PAPER_RATES = (0.4, 0.3, 0.2, 0.1, 0.05)
RATES = (0.001, 0.003, 0.01, 0.03, *PAPER_RATES[::-1], 1.0, 3.0, 10.0)
CLIP = (20.0, 1e-2)  # the paper's alpha and beta

EpochFeatures = Callable[[int], Tensor]  # epoch to features (N, D): cached, or augmented anew


def evaluate(
    subject: Subject, data: Any, options: Linear, folder: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Rows of accuracies in percent, each with its chosen base learning rate `lr`."""
    if options.epochs < 1:
        raise UserError(f"epochs is {options.epochs}; it must be 1 or more")
    if options.rates is not None and not all(rate > 0 for rate in options.rates or (0,)):
        raise UserError(f"rates is {options.rates}; base learning rates above 0 are expected")
    improved = options.variant == "improved"
    if improved and subject.views is None:
        say("there is no config.yaml with the views of the pretraining: the paper's are taken")
    views = (subject.views or (T, T_PRIME)) if improved else (PLAIN,) if options.augment else ()
    prepared = open_labelled(data, options.eval_data, options.seed, say)
    work = folder and folder / "work" / "linear"
    rows = {subject.name: _row(subject, prepared, options, views, say, work)}
    if options.baselines:
        fresh = baseline(subject, prepared.bank, options.seed)
        rows[fresh.name] = _row(fresh, prepared, options, views, say, work)
        bank, queries = (frozen_pixels(subject, s) for s in (prepared.bank, prepared.queries))
        rows["raw_pixels"] = _probe(bank, queries, prepared.classes, options)
    if work:
        shutil.rmtree(work, ignore_errors=True)
    for name, row in rows.items():
        say(
            f"{name.replace('_', ' ')}: top-1 {row['top1']:.2f} %, top-5 {row['top5']:.2f} % "
            f"(learning rate {row['lr']:g})"
        )
    return {"rows": rows, "metrics": {**metrics.SUMMARY, "lr": "chosen base learning rate"}}


def _row(
    subject: Subject,
    prepared: Prepared,
    options: Linear,
    views: Sequence[ViewSpec],
    say: Callable[[str], None],
    work: Path | None,
) -> dict[str, float]:
    readable: list[int] = []
    bank = frozen(subject, prepared.bank, readable)
    queries = frozen(subject, prepared.queries)
    train = None
    if views:  # of the same images as the labels
        train = augmented(subject, Subset(prepared.bank, np.array(readable)), options.seed, views)
    said = (dataclasses.asdict(options), views, prepared.classes)
    own = work and work / key(subject, prepared.bank, said)
    return _probe(bank, queries, prepared.classes, options, train, say, subject.name, own)


def _probe(
    bank: tuple[Tensor, Tensor],
    queries: tuple[Tensor, Tensor],
    classes: int,
    options: Linear,
    train: EpochFeatures | None = None,
    say: Callable[[str], None] = lambda line: None,
    title: str = "raw pixels",
    folder: Path | None = None,
) -> dict[str, float]:
    return linear(
        train or (lambda epoch: bank[0]),
        bank[1],
        *queries,
        classes,
        options.epochs,
        options.batch_size,
        options.rates or RATES,
        options.seed,
        say,
        CLIP if options.variant == "improved" else None,
        bank[0] if train else None,
        f"{title}, linear classifiers",
        folder,
    )


def linear(
    train: EpochFeatures,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    classes: int,
    epochs: int = 80,
    batch_size: int | None = None,
    rates: tuple[float, ...] = RATES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
    clip: tuple[float, float] | None = None,
    centre: Tensor | None = None,
    title: str = "",
    folder: Path | None = None,
) -> dict[str, float]:
    """top1, top5 and mean_per_class in percent on test (M, D), and the chosen base rate `lr`.

    `train(epoch)` gives the features (N, D) of the training images in a fixed order. A tenth of
    them (at least one of each ten) chooses the rate. batch_size: 1024 as in the paper, 256 where
    there are fewer than 20,000 images. clip: alpha and beta of the improved variant.
    centre: features (N, D) of the centre crops, where `train` augments. They choose the rate then,
    and all rates are trained on all images in the same pass, as features cost more than rates.
    title: of a bar. What takes longer than SAVE_SECONDS is saved in `folder`, and goes on there.
    """
    n = len(train_labels)
    batch_size = batch_size or (1024 if n >= 20_000 else 256)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held, kept = order[: max(1, n // 10)], order[max(1, n // 10) :]

    def heads(at: Tensor, rates: tuple[float, ...]) -> Heads:
        return Heads(train_labels, at, classes, epochs, batch_size, rates, seed, clip)

    chosen, whole = 0, heads(torch.arange(n), rates)
    if len(rates) > 1 and len(kept):
        sweep = heads(kept, rates)
        together = [sweep] if centre is None else [sweep, whole]
        _fit(train, together, epochs, title, folder and folder / "sweep")
        scores = sweep.scores((train(0) if centre is None else centre)[held])  # (R, n, K)
        accuracies = [metrics.accuracy(s.nan_to_num(-1e30), train_labels[held]) for s in scores]
        chosen = max(range(len(rates)), key=accuracies.__getitem__)
        progress(f"learning rate {rates[chosen]:g}: {max(accuracies):.1f} % on the held-out tenth")
    if whole.step == 0:
        whole = heads(torch.arange(n), (rates[chosen],))
        _fit(train, [whole], epochs, title, folder and folder / "whole")
    final = whole.scores(test)[chosen if len(whole.rates) > 1 else 0]  # (M, K)
    first, fifth = metrics.hits(final, test_labels), metrics.hits(final, test_labels, 5)
    return metrics.summary(first, fifth, test_labels) | {"lr": rates[chosen]}


def _fit(
    features: EpochFeatures, heads: list[Heads], epochs: int, title: str, folder: Path | None
) -> None:
    start = 0
    if folder and (found := checkpoint.newest(folder, partial(print, file=sys.stderr))):
        start, state = found
        for each, values in zip(heads, state["heads"], strict=True):
            each.load(values)
    saved = time.monotonic()
    epochs_left = watched(range(start, epochs), epochs, len(heads[0].at), title, start)
    for epoch in epochs_left:
        rows = features(epoch)  # (N, D)
        for each in heads:
            each.epoch(rows, epoch)
        if folder and time.monotonic() - saved > SAVE_SECONDS:
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint.save(folder, epoch + 1, {"heads": [each.state() for each in heads]})
            saved = time.monotonic()
