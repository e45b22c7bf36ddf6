"""The picture of a run's curves: what it shows, and that nothing lies on anything else."""

import json
from pathlib import Path
from typing import Any

import pytest

from byol.report import curves


def drawn(run: Path, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figure that curves() draws of these lines of metrics.jsonl."""
    from matplotlib import pyplot

    kept: list[Any] = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves(run)
    assert (run / "curves.png").stat().st_size < 150_000
    return kept[0]


@pytest.mark.parametrize("last", [1, 9_375, 312_784])
def test_legends_and_ticks_lie_on_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    names = ("loss", "knn", "probe", "projection_deviation", "projection_cosine")
    lines = [{"step": max(1, last * i // 12), **dict.fromkeys(names, 0.8)} for i in range(1, 13)]
    figure = drawn(tmp_path, lines, monkeypatch)
    for axis in figure.axes:
        panel = axis.get_window_extent()
        legend = axis.get_legend()
        assert (legend is None) == (axis.get_title(loc="left") == "loss")
        if legend is not None:
            box = legend.get_window_extent()
            assert box.y0 > panel.y1 - 1 and box.x1 <= panel.x1 + 1
        inside = [t for t in axis.get_xticklabels() if axis.viewLim.x0 <= t.get_position()[0]]
        boxes = [t.get_window_extent() for t in inside if t.get_position()[0] <= axis.viewLim.x1]
        assert boxes and all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))


def test_a_run_without_labels_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"step": 10, "loss": 3.0, "projection_deviation": 0.5, "projection_cosine": 0.5}]
    figure = drawn(tmp_path, lines, monkeypatch)
    assert [text.get_text() for text in figure.axes[1].texts] == ["no labels"]
