"""The timing harness: what it counts, whom it asks, what it writes."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import literal, ours, tables, timing
from benchmarks.peers import Elsewhere, PeerError, Worker
from byol.build import build_learner
from byol.engine.gradients import make_views
from byol.learner import Byol
from byol.options import with_options
from byol.recipes import build

# Answers a line with the square of `repeats` and the task's option; dies when told to.
DUMMY = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    kind, options = asked["task"]
    if kind == "die":
        sys.exit("out of luck")
    answer = {"cpu": asked["repeats"] ** 2, "wall": options.get("wall", 0)}
    print(json.dumps({"error": "cannot"} if kind == "fail" else answer), flush=True)
"""


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_processor_time_counts_work_and_wall_time_counts_waiting() -> None:
    def work() -> None:
        spin(0.02)
        time.sleep(0.02)

    found = timing.race({"whole": timing.here(work), "half": timing.here(work, 2)}, 3, seconds=0.08)
    assert 19 < found["whole"].cpu[1] < 30 and found["whole"].wall[1] > 39
    assert found["half"].cpu[1] == pytest.approx(found["whole"].cpu[1] / 2, rel=0.3)


def test_turns_repeats_and_quartiles() -> None:
    calls: list[tuple[str, int]] = []

    def competitor(name: str) -> timing.Competitor:
        def run(repeats: int) -> timing.Cost:
            calls.append((name, repeats))
            return timing.Cost(len(calls), 0)

        return run

    found = timing.race({name: competitor(name) for name in "abc"}, 3, seconds=0, warm=True)
    assert calls == [(name, 1) for name in "abcbcacab"]  # each takes its turn in each place
    assert found["a"].cpu == (3500, 6000, 7000)  # calls 1, 6 and 8, in ms
    calls.clear()
    timing.race({"a": competitor("a")}, 2, seconds=0)
    assert len(calls) == 3  # one to warm up


def test_another_process_is_a_competitor() -> None:
    worker = Worker([sys.executable, "-c", DUMMY])
    try:
        assert Elsewhere(worker, "any", wall=7)(3) == timing.Cost(9, 7)
        with pytest.raises(PeerError, match="cannot"):
            Elsewhere(worker, "fail")(1)
        assert Elsewhere(worker, "any")(2).cpu == 4  # a task that fails ends nothing
        with pytest.raises(PeerError, match="out of luck"):
            Elsewhere(worker, "die")(1)
    finally:
        worker.close()


def test_what_is_published_fills_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {
        "byol": timing.Timing((1.0, 2.0, 4.0), (3.0, 3.0, 3.0)),
        "other": timing.Timing((4.0, 5.0, 6.0), (9.0, 9.0, 9.0)),
    }
    monkeypatch.setattr(timing, "HOME", tmp_path / "docs")
    timing.publish("a-b", "A title", found, per="step", base="byol", command="run", notes=["so"])
    written: dict[str, Any] = json.loads((tmp_path / "docs/results/speed/a-b.json").read_text())
    assert written["rows"]["other"] == {"cpu_ms": [4, 5, 6], "wall_ms": [9, 9, 9]}
    line = capsys.readouterr().out.splitlines()[4]
    assert line.split() == ["other", "5.000", "4.000", "to", "6.000", "9.000", "2.50"]
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    text = tables.filled("<!-- speed/a-b:begin -->\nold\n<!-- speed/a-b:end -->\n")
    assert "| other | 5.000 | 4.000 to 6.000 | 9.000 | 2.50 |" in text
    assert "old" not in text and "- so" in text and tables.filled(text) == text


def test_the_literal_loop_does_what_the_fast_path_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    pixels = np.repeat(np.repeat(pixels[:, ::4, ::4], 4, 1), 4, 2)
    values = {"model": "convnet-4", "hidden_size": 32, "precision": "fp32", "device": "cpu"}
    values["zero_gamma"] = "false"
    config = with_options(build("small-32", 24, 5, 8)[0], {**values, **ours.DATA})
    batch = next(literal.fast_loader(config, pixels).batches(0, 1))
    fast = torch.stack(make_views(config, batch, torch.device("cpu")))
    slow = torch.stack(next(literal.batches(config, pixels, 1)))
    assert (fast - slow).abs().max() < 2 / 255 and (fast - slow).abs().mean() < 0.05 / 255
    learner = build_learner(config)
    found = literal.forward(learner, *slow).item()
    assert found == pytest.approx(learner(*slow).item(), rel=1e-5)

    def moved(trained: Byol) -> torch.Tensor:
        start = build_learner(config).parameters()
        ways = zip(trained.parameters(), start, strict=True)
        return torch.cat([(after - before).flatten() for after, before in ways])

    quick = moved(literal.train_fast(config, pixels))
    apart = (quick - moved(literal.train_literally(config, pixels))).norm()
    assert quick.norm() > 0.01 and apart < 0.02 * quick.norm()
