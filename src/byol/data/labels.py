"""What data sets call things: labels of any form as int64 and class names, names of splits."""

from collections.abc import Sequence
from typing import Any

import numpy as np

LABEL_NAMES = ("label", "labels", "class", "cls", "target", "fine_label", "y")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MANY = 100_000  # larger numbers are names, not places in a list


def as_labels(
    values: Sequence[Any] | np.ndarray | None, classes: list[str] | None = None
) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels (N,) int64, -1 where one is missing, and the names of the classes.

    Whole numbers stay what they are (named by themselves unless `classes` are given), words are
    numbered in sorted order. (None, None) where there is not one label per image.
    """
    if values is None or len(values) == 0:
        return None, None
    array = np.asarray(values) if isinstance(values, np.ndarray) else None
    if array is not None and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array is not None and array.ndim != 1:
        return None, None
    given = list(values) if array is None else array.tolist()
    try:
        whole = {value: _whole(value) for value in set(given)}  # far fewer than labels
    except TypeError:  # not hashable, such as a list of several labels
        return None, None
    if all(number is not None for number in whole.values()):
        return _numbers(np.array([whole[value] for value in given], np.int64), classes)
    if any(not isinstance(value, (str, int)) and value is not None for value in whole):
        return None, None
    words = ["" if value is None else str(value) for value in given]
    names = sorted(set(words) - {""})
    place = {name: i for i, name in enumerate(names)} | {"": -1}
    return np.array([place[word] for word in words], np.int64), names


def align(labels: np.ndarray, classes: list[str], onto: list[str]) -> tuple[np.ndarray, list[str]]:
    """The same labels in the numbering of `onto`, which unknown classes extend at its end."""
    names = onto + [name for name in classes if name not in set(onto)]
    place = {name: i for i, name in enumerate(names)}
    moved = np.array([place[name] for name in classes] + [-1], np.int64)
    return moved[labels], names  # label -1 takes the last entry


def _whole(value: Any) -> int | None:
    """The number behind a label; -1 for none, None for a word."""
    if value is None or value == "":
        return -1
    try:
        return int(value) if int(value) == float(value) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _numbers(
    labels: np.ndarray, classes: list[str] | None
) -> tuple[np.ndarray | None, list[str] | None]:
    labels = np.maximum(labels, -1)
    if labels.max() < 0:
        return None, None
    if classes is not None and labels.max() < len(classes):
        return labels, classes
    if labels.max() < _MANY:
        return labels, [str(i) for i in range(int(labels.max()) + 1)]
    found = np.unique(labels[labels >= 0])
    places = np.where(labels >= 0, np.searchsorted(found, labels), -1)
    return places, [str(number) for number in found]
