"""Which images are trained on, and which are measured on."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from byol.data.source import Source, Splits, Subset
from byol.errors import UserError


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
    seen = f"is left out, {len(rest):,} are trained on" if hold_out else "is pretrained on too"
    choice = (
        f"{choice.rstrip('.')}; a tenth ({tenth} images) keeps its labels for measuring and {seen}"
    )
    classes = int(train.labels.max()) + 1
    return Prepared(rest if hold_out else train, rest, queries, classes, choice)


def prepare_labelled(
    splits: Splits, seed: int, say: Callable[[str], None], leave_one_out: bool = False
) -> Prepared:
    """The same for what needs labels, or a UserError that says why they do not suffice.

    Images without a label are left out, and `say` hears of them; likewise those of a drawn tenth
    whose class has no other image. leave_one_out: without a test set all images are both.
    """
    train, test = splits.train, splits.test
    if test is not None and test.labels is None and train.labels is not None:
        raise UserError(
            f"{test.name} has no labels to measure with, and {train.name} has: give labelled "
            f"images with --eval-data, or {train.name} alone as the data"
        )
    if train.labels is None and test is None:
        raise UserError(
            f"{train.name} has no labels to evaluate on: give class sub-folders, labelled "
            "Parquet or tar shards, or arrays with labels"
        )
    train = _with_labels(train, say)
    test = None if test is None else _with_labels(test, say)
    _check_classes(train, test)
    if test is None and leave_one_out:
        if np.unique(_labels(train), return_counts=True)[1].max() < 2:
            raise UserError(f"no class of {train.name} has a second image to be measured on")
        classes = int(_labels(train).max()) + 1
        return Prepared(train, train, train, classes, "every image queries all the others")
    prepared = prepare(Splits(train, test, splits.choice), seed)
    if not prepared.classes:
        raise UserError(
            f"{train.name} has {len(train)} labelled images and no test split; 20 are needed to "
            "hold out a tenth: give more, or other images to measure on with --eval-data"
        )
    lonely = ~np.isin(_labels(prepared.queries), _labels(prepared.bank))
    if lonely.all():
        raise UserError(f"no class of {prepared.bank.name} has a second image to be measured on")
    if lonely.any():
        say(f"{lonely.sum()} images are not measured on, as their class has no other image")
        kept = Subset(prepared.queries, np.flatnonzero(~lonely))
        prepared = replace(prepared, queries=kept)
    return prepared


def _labels(source: Source) -> np.ndarray:
    assert source.labels is not None
    return source.labels


def _with_labels(source: Source, say: Callable[[str], None]) -> Source:
    """The images that have a label."""
    if source.labels is None or (source.labels >= 0).all():
        return source
    missing = np.flatnonzero(source.labels < 0)
    say(
        f"{len(missing)} of {len(source)} images of {source.name} have no label and are left out, "
        f"such as {source.locate(int(missing[0]))}"
    )
    return Subset(source, np.flatnonzero(source.labels >= 0))


def _check_classes(train: Source, test: Source | None) -> None:
    """At least two classes, and none in the test set that training lacks."""
    labelled = train if train.labels is not None else test
    assert labelled is not None
    seen = np.unique(_labels(labelled))
    names = labelled.classes or []
    if len(seen) < 2:
        only = names[seen[0]] if len(seen) and len(names) > seen[0] else "none"
        raise UserError(f"{labelled.name} has images of one class ({only}); two are needed")
    if test is None or train.labels is None:
        return
    surplus = [int(label) for label in np.setdiff1d(_labels(test), seen)]
    if surplus:
        named = ", ".join(names[i] if i < len(names) else str(i) for i in surplus[:5])
        more = ", ..." if len(surplus) > 5 else ""
        first = test.locate(int(np.flatnonzero(_labels(test) == surplus[0])[0]))
        raise UserError(
            f"{test.name} has {len(surplus)} classes of which {train.name} has no image ({named}"
            f"{more}), such as that of {first}: add training images, or take them out of "
            "the test set"
        )
