"""Average precision by hand, and against pycocotools itself."""

import builtins
from typing import Any

import numpy as np
import pytest
import torch

from byol.errors import UserError
from byol.metrics import eleven_point_ap
from byol.tasks import precision
from byol.tasks.precision import Boxes, average_precision, voc_ap


def boxes(*rows: tuple[float, ...], scores: list[float] | None = None, crowd: int = 0) -> Boxes:
    """Rows (left, top, right, bottom, class); the last `crowd` of them are ignored ones."""
    table = torch.tensor(rows).reshape(-1, 5).float()
    found = {"boxes": table[:, :4], "labels": table[:, 4].long()}
    if scores is not None:
        return {**found, "scores": torch.tensor(scores)}
    return {**found, "iscrowd": (torch.arange(len(table)) >= len(table) - crowd).long()}


A, B, C, FAR = (0, 0, 10, 10, 0), (20, 0, 30, 10, 0), (40, 0, 50, 10, 0), (80, 80, 90, 90, 0)


def test_eleven_points_by_hand() -> None:
    """Right, wrong, right of 3: precision 1 up to recall 1/3, 2/3 up to recall 2/3, then 0."""
    scores, correct = torch.tensor([0.9, 0.5, 0.7]), torch.tensor([True, True, False])
    assert eleven_point_ap(scores, correct, 3) == pytest.approx(100 * (4 * 1 + 3 * 2 / 3) / 11)
    assert eleven_point_ap(scores, torch.ones(3).bool(), 10) == pytest.approx(100 * 4 / 11)
    assert eleven_point_ap(torch.empty(0), torch.empty(0).bool(), 3) == 0


def test_a_second_box_on_one_object_is_wrong() -> None:
    found = boxes(A, A, B, scores=[0.9, 0.8, 0.7])
    assert voc_ap([found], [boxes(A, B)], 0) == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)
    assert voc_ap([boxes(A, B, scores=[0.9, 0.7])], [boxes(A, B)], 0) == pytest.approx(100)


def test_order_is_by_score_over_all_images() -> None:
    found = [boxes(A, scores=[0.3]), boxes(FAR, scores=[0.6])]
    assert voc_ap(found, [boxes(A), boxes(A)], 0) == pytest.approx(100 * 6 * 0.5 / 11)


def test_the_best_overlap_decides_even_if_taken() -> None:
    """VOC's rule, not COCO's: the third box overlaps the first object most, which is taken."""
    true = boxes((0, 0, 10, 10, 0), (4, 0, 14, 10, 0))
    found = boxes((0, 0, 10, 10, 0), (1.8, 0, 11.8, 10, 0), scores=[0.9, 0.8])
    assert voc_ap([found], [true], 0) == pytest.approx(100 * 6 / 11)
    means, _ = average_precision([found], [true], ["a"])
    assert means["ap50"] == pytest.approx(100) and means["ap50_voc"] == pytest.approx(600 / 11)


def test_half_an_overlap_counts_and_less_does_not() -> None:
    for height, expected in ((5, 100.0), (4.9, 0.0)):
        found = boxes((0, 0, 10, height, 0), scores=[0.9])
        assert voc_ap([found], [boxes(A)], 0) == pytest.approx(expected)


def test_difficult_boxes_are_neither_needed_nor_wrong() -> None:
    true = boxes(A, C, crowd=1)
    found = boxes(C, C, A, scores=[0.9, 0.8, 0.7])
    means, table = average_precision([found], [true], ["a"])
    assert means == pytest.approx({"ap50_voc": 100, "ap50": 100, "ap": 100})
    assert table["a"]["boxes"] == 1
    only, nothing = average_precision([found], [boxes(C, crowd=1)], ["a"])
    assert nothing == {} and only["ap50_voc"] == 0


def _random(seed: int, classes: int = 3) -> tuple[list[Boxes], list[Boxes]]:
    """True boxes on a grid; found ones near them, elsewhere, or of another class."""
    rng = np.random.default_rng(seed)
    found, true = [], []
    for _ in range(12):
        corners = rng.permutation(16)[: rng.integers(0, 7)]
        rows = [(c % 4 * 40, c // 4 * 40, c % 4 * 40 + 30, c // 4 * 40 + 25) for c in corners]
        labels = rng.integers(0, classes, len(rows))
        true.append(boxes(*[(*map(float, r), int(k)) for r, k in zip(rows, labels, strict=True)]))
        near = [
            (*(np.array(r) + rng.normal(0, 4, 4)), int(k))
            for r, k in zip(rows, labels, strict=True)
        ]
        near += [(150.0, 150.0, 160.0, 160.0, int(rng.integers(classes)))]
        kept = [row for row in near if rng.random() < 0.8]
        found.append(boxes(*kept, scores=rng.random(len(kept)).tolist()))
    return found, true


def _pycocotools(found: list[Boxes], true: list[Boxes], points: int) -> np.ndarray:
    """Precision (overlaps, recalls, classes) straight from COCOeval."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(many: list[Boxes]) -> list[dict[str, Any]]:
        table = []
        for i, one in enumerate(many):
            for j, (x, y, right, bottom) in enumerate(one["boxes"].tolist()):
                row: dict[str, Any] = {
                    "image_id": i,
                    "category_id": int(one["labels"][j]),
                    "iscrowd": 0,
                }
                row["bbox"] = [x, y, right - x, bottom - y]
                row["area"] = (right - x) * (bottom - y)
                table.append(row | ({"score": float(one["scores"][j])} if "scores" in one else {}))
        return table

    truth = COCO()
    annotations = [row | {"id": i + 1} for i, row in enumerate(rows(true))]
    images = [{"id": i} for i in range(len(true))]
    categories = [{"id": k} for k in range(3)]
    truth.dataset = {"images": images, "annotations": annotations, "categories": categories}
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(rows(found)), "bbox")
    evaluation.params.recThrs = np.linspace(0, 1, points)
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[..., 0, -1]


@pytest.mark.parametrize("seed", range(3))
def test_all_three_against_pycocotools(seed: int) -> None:
    """No two true boxes touch here, so that VOC's matching is COCO's."""
    found, true = _random(seed)
    means, table = average_precision(found, true, ["a", "b", "c"])
    hundred, eleven = (_pycocotools(found, true, points) for points in (101, 11))
    assert means["ap"] == pytest.approx(100 * hundred.mean(), abs=1e-4)
    assert means["ap50"] == pytest.approx(100 * hundred[0].mean(), abs=1e-4)
    assert means["ap50_voc"] == pytest.approx(100 * eleven[0].mean(), abs=1e-4)
    for k, name in enumerate("abc"):
        assert table[name]["ap50"] == pytest.approx(100 * hundred[0, :, k].mean(), abs=1e-4)
        assert table[name]["ap"] == pytest.approx(100 * hundred[:, :, k].mean(), abs=1e-4)
    assert 20 < means["ap50"] < 95


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "pycocotools":
            raise ImportError("gone", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pycocotools, .* pip install 'byol\[detection\]'"):
        precision.require()
