"""Linear evaluation on frozen features (paper appendix C.1; official `byol/eval_experiment.py`).

SGD with Nesterov momentum 0.9, no weight decay, cosine to 0, base learning rates multiplied by
batch / 256. All rates are trained side by side on the same batches; the best on a held-out part
of the training data is trained again on all of it. The paper sweeps the five values from 0.05 to
0.4 for ImageNet features; the wider list makes raw pixels and other encoders comparable.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from byol import metrics
from byol.errors import UserError
from byol.protocols import Linear
from byol.tasks.features import augmented, frozen, open_labelled
from byol.tasks.subject import Subject

PAPER_RATES = (0.4, 0.3, 0.2, 0.1, 0.05)
RATES = (0.001, 0.003, 0.01, 0.03, *PAPER_RATES[::-1], 1.0, 3.0, 10.0)

EpochFeatures = Callable[[int], Tensor]  # epoch to features (N, D): cached, or augmented anew


def evaluate(
    subject: Subject, data: Any, options: Linear, folder: Path | None, say: Callable[[str], None]
) -> dict[str, float]:
    """top1 and top5 in percent of a linear classifier on `subject`, and the chosen rate `lr`."""
    if options.epochs < 1:
        raise UserError(f"epochs is {options.epochs}; it must be 1 or more")
    prepared = open_labelled(data, options.eval_data, options.seed, say)
    bank, bank_labels = frozen(subject, prepared.bank)
    queries, labels = frozen(subject, prepared.queries)

    def cached(epoch: int) -> Tensor:
        return bank

    train = augmented(subject, prepared.bank, options.seed) if options.augment else cached
    result = linear(
        train,
        bank_labels,
        queries,
        labels,
        prepared.classes,
        options.epochs,
        options.batch_size,
        seed=options.seed,
        progress=say,
    )
    say(f"linear: top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %")
    return result


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
) -> dict[str, float]:
    """top1 and top5 in percent on test (M, D), and the chosen base rate `lr`.

    `train(epoch)` gives the features (N, D) of the training images in a fixed order. A tenth of
    them (at least one of each ten) chooses the rate. batch_size: 1024 as in the paper, 256 where
    there are fewer than 20,000 images.
    """
    n = len(train_labels)
    batch_size = batch_size or (1024 if n >= 20_000 else 256)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held, kept = order[: max(1, n // 10)], order[max(1, n // 10) :]
    chosen = rates[0]
    if len(rates) > 1 and len(kept):
        weights, bias = _train(train, train_labels, kept, classes, epochs, batch_size, rates, seed)
        scores = _scores(train(0)[held], weights, bias)  # (R, n, K)
        accuracies = [metrics.accuracy(s.nan_to_num(-1e30), train_labels[held]) for s in scores]
        chosen = rates[max(range(len(rates)), key=accuracies.__getitem__)]
        progress(f"learning rate {chosen:g}: {max(accuracies):.1f} % on the held-out tenth")
    everything = torch.arange(n)
    weights, bias = _train(
        train, train_labels, everything, classes, epochs, batch_size, (chosen,), seed
    )
    final = _scores(test, weights, bias)[0]  # (M, K)
    return {
        "top1": metrics.accuracy(final, test_labels),
        "top5": metrics.accuracy(final, test_labels, 5),
        "lr": chosen,
    }


def _scores(features: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """(N, D), (R, D, K), (R, 1, K) to (R, N, K)."""
    return torch.einsum("nd,rdk->rnk", features.float(), weights) + bias


def _train(
    features: EpochFeatures,
    labels: Tensor,
    at: Tensor,
    classes: int,
    epochs: int,
    batch_size: int,
    rates: tuple[float, ...],
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Weights (R, D, K) and biases (R, 1, K) after SGD at each of R rates on the rows `at`.

    The gradient of softmax cross-entropy is written out: all rates share one matrix product.
    """
    device = labels.device
    first = features(0)
    steps_per_epoch = math.ceil(len(at) / batch_size)
    peak = torch.tensor(rates, device=device)[:, None, None] * batch_size / 256  # (R, 1, 1)
    weights = torch.zeros(len(rates), first.shape[1], classes, device=device)  # (R, D, K)
    bias = torch.zeros(len(rates), 1, classes, device=device)
    momentum = [torch.zeros_like(weights), torch.zeros_like(bias)]
    truth = F.one_hot(labels, classes).float()  # (N, K)
    step = 0
    for epoch in range(epochs):
        rows = features(epoch)  # (N, D)
        for batch in _batches(at.to(device), batch_size, seed, epoch):
            x = rows[batch].float()  # (b, D)
            rate = peak * (1 + math.cos(math.pi * step / (epochs * steps_per_epoch))) / 2
            error = (_scores(x, weights, bias).softmax(2) - truth[batch]) / len(batch)  # (R, b, K)
            gradients = (torch.einsum("nd,rnk->rdk", x, error), error.sum(1, keepdim=True))
            for parameter, buffer, gradient in zip(
                (weights, bias), momentum, gradients, strict=True
            ):
                buffer.mul_(0.9).add_(gradient)
                parameter.sub_(rate * (gradient + 0.9 * buffer))
            step += 1
    return weights, bias


def _batches(at: Tensor, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed((seed << 20) + epoch + 1)
    order = torch.randperm(len(at), generator=generator).to(at.device)
    yield from at[order].split(batch_size)
