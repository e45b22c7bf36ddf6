"""The sweeps of docs/recipes.md: their plans, and that a time limit keeps what is done."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import sweeps
from benchmarks.shown.results import sweep
from byol import recipes
from byol.checks import check
from byol.options import with_options


@pytest.mark.parametrize("name", sweeps.PLANS)
def test_every_row_is_a_configuration(name: str) -> None:
    for images, shown, shared in sweeps.PLANS[name]():
        given = {**shared, **shown}
        recipe, model = given.pop("recipe"), given.get("model", "convnet")
        asked = {k: given.pop(k) for k in ("epochs", "batch_size", "optimizer") if k in given}
        config, reason = recipes.build(recipe, images or 50_000, **asked)
        check(with_options(config, given))
        assert reason.count(" epochs") == 2 and model


def ended(number: int) -> str:
    """What the process of a row leaves."""
    result: dict[str, Any] = {"knn": {"trained": 50.0 + number, "untrained": 20.0}}
    result["knn"]["raw_pixels"] = 30.0
    result["collapse"] = {"verdict": "healthy"}
    machine = {
        "cpu": "C",
        "threads": 1,
        "python": "3",
        "packages": {"torch": "2"},
        "devices": ["G"],
    }
    return json.dumps({"environment": machine, "row": {"options": {"tau": 0.9}, "result": result}})


def test_the_rows_that_have_ended_make_a_table_in_the_plans_order(tmp_path: Path) -> None:
    options = argparse.Namespace(name="batches", data=None, out=tmp_path / "out", jobs=4)
    sweeps.collect(options, tmp_path, 3)
    assert not options.out.exists()
    for number in (2, 0):
        (tmp_path / f"{number}.json").write_text(ended(number))
    sweeps.collect(options, tmp_path, 3)
    table = json.loads((options.out / "batches.json").read_text())
    assert [row["result"]["knn"]["trained"] for row in table["rows"]] == [50.0, 52.0]
    assert sweep(table).endswith("G, up to 4 runs at once, Python 3, torch 2.")


def test_the_time_limit_ends_the_rows_and_counts_them(tmp_path: Path) -> None:
    options = argparse.Namespace(name="vit", data="x", out=tmp_path, jobs=2, minutes=0.0)
    assert sweeps.run(options, tmp_path) == len(sweeps.PLANS["vit"]()) > 0
