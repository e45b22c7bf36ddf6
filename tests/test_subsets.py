"""Labelled subsets: nested, balanced, fixed by the seed, or named in a list."""

from pathlib import Path

import numpy as np
import pytest

from byol.data.folders import FileSource
from byol.errors import UserError
from byol.tasks.subsets import balanced, held_out, orders, read_list

LABELS = np.array([0] * 200 + [1] * 100 + [2] * 3 + [3])


def test_a_share_of_each_class_and_one_image_at_least() -> None:
    order = orders(LABELS, 0)
    for percent, counts in ((1, [2, 1, 1, 1]), (10, [20, 10, 1, 1]), (50, [100, 50, 2, 1])):
        assert np.bincount(LABELS[balanced(order, percent)]).tolist() == counts
    assert balanced(order, 100).tolist() == list(range(len(LABELS)))


def test_subsets_are_nested_and_a_function_of_the_seed() -> None:
    parts = [set(balanced(orders(LABELS, 3), p)) for p in (1, 2, 5, 10, 20, 50, 100)]
    assert all(a <= b for a, b in zip(parts, parts[1:], strict=False))
    assert parts[3] == set(balanced(orders(LABELS, 3), 10))
    assert parts[3] != set(balanced(orders(LABELS, 4), 10))


def test_the_held_out_tenth_is_of_every_class_and_no_part_of_subsets_up_to_half() -> None:
    order = orders(LABELS, 0)
    held = held_out(order)
    assert np.bincount(LABELS[held], minlength=4).tolist() == [20, 10, 1, 0]
    assert not set(held) & set(balanced(order, 50))


def test_listed_images_come_first() -> None:
    listed = np.array([5, 150, 250, 303])
    order = orders(LABELS, 0, listed)
    assert [set(m[:2]) & set(listed) for m in order] == [{5, 150}, {250}, set(), {303}]
    assert not set(held_out(order)) & set(listed)


def test_a_list_of_names(tmp_path: Path) -> None:
    paths = [f"/data/{c}/{name}" for c in ("cat", "dog") for name in ("1.png", f"{c}.png")]
    source = FileSource(paths, ["cat", "cat", "dog", "dog"], "pets")
    said: list[str] = []
    file = tmp_path / "some.txt"
    file.write_text("dog/1.png\n\ncat.png\nmouse.png\n1.png\nog/dog.png\n")
    assert read_list(file, source, said.append).tolist() == [1, 2]
    assert said == [f"3 of 5 names in {file} fit no image or several: mouse.png, 1.png, og/dog.png"]
    file.write_text("mouse.png")
    with pytest.raises(UserError, match=r"no image of pets \(mouse.png\)"):
        read_list(file, source, said.append)
    with pytest.raises(UserError, match="nowhere.txt cannot be read"):
        read_list(tmp_path / "nowhere.txt", source, said.append)
