"""Which images are trained on, and which are measured on."""

from dataclasses import dataclass

import numpy as np

from byol.data.source import Source, Splits, Subset


@dataclass(frozen=True)
class Prepared:
    """The data of a run, opened and split."""

    train: Source  # what is pretrained on
    bank: Source  # labelled neighbours and probe training
    queries: Source  # what is measured on
    classes: int  # 0 without labels
    choice: str  # one sentence saying which is which


def prepare(splits: Splits, seed: int, hold_out: bool = False) -> Prepared:
    """Decide what is trained on and what is measured on.

    Without a labelled test set a tenth of the labelled images, drawn from `seed`, is measured;
    `hold_out` keeps it away from pretraining too. classes is 0 where nothing can be measured.
    """
    train, test, choice = splits.train, splits.test, splits.choice
    if test is not None and test.labels is not None and train.labels is not None:
        classes = int(max(train.labels.max(), test.labels.max())) + 1
        return Prepared(train, train, test, classes, choice)
    if test is not None and test.labels is not None:  # unlabelled training, labelled measuring
        order = np.random.default_rng(seed).permutation(len(test))
        fifth = max(len(test) // 5, 1)
        queries, bank = Subset(test, np.sort(order[:fifth])), Subset(test, np.sort(order[fifth:]))
        choice = f"{choice.rstrip('.')}; a fifth of the latter are queries, the rest neighbours"
        return Prepared(train, bank, queries, int(test.labels.max()) + 1, choice)
    if train.labels is None or len(np.unique(train.labels)) < 2 or len(train) < 20:
        return Prepared(train, train, test or train, 0, choice)
    order = np.random.default_rng(seed).permutation(len(train))
    tenth = max(len(train) // 10, 2)
    queries, rest = Subset(train, np.sort(order[:tenth])), Subset(train, np.sort(order[tenth:]))
    seen = "is kept away from pretraining" if hold_out else "is pretrained on too"
    choice = (
        f"{choice.rstrip('.')}; a tenth ({tenth} images) keeps its labels for measuring and {seen}"
    )
    classes = int(train.labels.max()) + 1
    return Prepared(rest if hold_out else train, rest, queries, classes, choice)
