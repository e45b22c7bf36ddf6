"""Tables from hand-made folders, by value."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from byol.errors import UserError
from byol.lab import pictures
from byol.lab.rows import Row, Table
from byol.lab.run import write_tables
from byol.lab.table import latex, markdown, rank_correlation, summarise, to_csv

ROWS: tuple[Row, ...] = (
    Row("baseline", {}, 72.5),
    Row("slow", {"tau_base": "x10"}, 69.8),
    Row("no predictor", {"predictor_depth": 0}, 0.2),
    Row("broken", {}, None),
)
# (row, seed): kNN, verdict
FIGURES = {
    ("baseline", 0): (60.0, "healthy"),
    ("baseline", 1): (62.0, "healthy"),
    ("slow", 0): (61.5, "healthy"),
    ("slow", 1): (60.5, "doubtful"),
    ("no predictor", 0): (20.0, "collapsed"),
    ("no predictor", 1): (20.0, "collapsed"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    runs: list[dict[str, Any]] = []
    for row in ROWS:
        for seed in (0, 1):
            name = f"{row.name.replace(' ', '-')}/seed-{seed}"
            values = {"tau_base": 0.99} if row.name == "slow" else row.overrides
            run = {"row": row.name, "method": "BYOL", "seed": seed, "folder": name}
            runs.append({**run, "values": values, "command": "byol pretrain"})
            (tmp_path / name).mkdir(parents=True)
            if (row.name, seed) not in FIGURES:
                (tmp_path / f"{name}.failed").write_text("out of memory\n")
                continue
            knn, verdict = FIGURES[row.name, seed]
            accuracy = {"trained": knn, "untrained": 24.0 + seed}
            result: dict[str, Any] = {"knn": accuracy, "linear": {}}
            result["collapse"] = {"verdict": verdict}
            (tmp_path / name / "result.json").write_text(json.dumps(result))
            lines = [{"step": s, "projection_deviation": s / 10 + seed} for s in (5, 10)]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (tmp_path / name / "metrics.jsonl").write_text(text)
    table = Table("mine", "Slower?", "top-1", "table 5a", ROWS)
    content = json.loads(json.dumps({"table": asdict(table), "runs": runs}))
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def test_markdown_by_value(folder: Path) -> None:
    assert markdown(summarise(folder)).split("\n") == [
        "| row | kNN in % | to baseline | paper | to baseline | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
        "| baseline | 61.0 ± 1.0 | +0.0 | 72.5 | +0.0 | healthy |",
        "| slow (tau_base 0.99) | 61.0 ± 0.5 | +0.0 | 69.8 | -2.7 | 1 healthy, 1 doubtful |",
        "| no predictor | 20.0 ± 0.0 | -41.0 | 0.2 | -72.3 | collapsed |",
        "| broken | – | – | – | – | failed: out of memory |",
        "",
        "Ours: kNN top-1 in %, mean of 2 seeds ± half the range; paper: top-1 (table 5a). The "
        "untrained network: 24.5. Rank correlation with the paper: 0.87. In brackets: what a "
        "row's multiple of the base came to.",
        "",
    ]


def test_csv_and_latex_by_value(folder: Path) -> None:
    summary = summarise(folder, "knn")
    lines = to_csv(summary).split("\n")
    assert lines[0] == "method,name,mean,spread,difference,paper,paper_difference,verdict"
    assert lines[3] == "BYOL,no predictor,20.0,0.0,-41.0,0.2,-72.3,collapsed"
    assert lines[4] == "BYOL,broken,,,,,,failed: out of memory"
    text = latex(summary)
    assert r"slow (tau\_base 0.99) & 61.0 $\pm$ 0.5 & +0.0 & 69.8 & -2.7 & 1 healthy" in text
    assert r"kNN in \% &" in text and text.endswith("\\end{tabular}\n")


def test_figures_that_are_not_there(folder: Path) -> None:
    assert summarise(folder, "linear")["rows"][0]["mean"] is None
    with pytest.raises(UserError, match="knn or linear"):
        summarise(folder, "accuracy")
    with pytest.raises(UserError, match="no folder of byol ablate"):
        summarise(folder / "slow")


def test_a_row_to_do_says_so_and_does_not_count(folder: Path) -> None:
    (folder / "slow/seed-0/result.json").unlink()
    row = summarise(folder)["rows"][1]
    assert (row["mean"], row["spread"], row["missing"]) == (60.5, None, 1)
    assert "| doubtful, 1 to do |" in markdown(summarise(folder))


def test_each_method_has_its_own_baseline(folder: Path) -> None:
    plan = yaml.safe_load((folder / "table.yaml").read_text())
    for number in (1, 2):  # slow becomes SimCLR's baseline, no predictor its row
        plan["table"]["rows"][number]["method"] = "SimCLR"
    plan["table"]["rows"][1]["name"] = "baseline"
    for run in plan["runs"]:
        if run["row"] in ("slow", "no predictor"):
            run["method"] = "SimCLR"
            run["row"] = "baseline" if run["row"] == "slow" else run["row"]
    (folder / "table.yaml").write_text(yaml.safe_dump(plan))
    rows = summarise(folder)["rows"]
    assert (rows[2]["difference"], rows[2]["paper_difference"]) == (-41.0, pytest.approx(-69.6))
    assert markdown(summarise(folder)).startswith("| method | row |")


def test_rank_correlation_by_hand() -> None:
    """Ranks 1 2 3 4 against 2 1 3 4: 1 - 6 (1 + 1) / (4 15) = 0.8; and with a tie."""
    assert rank_correlation([(1, 20), (2, 10), (3, 30), (4, 40)]) == pytest.approx(0.8)
    assert rank_correlation([(1, 5), (2, 4), (9, 3)]) == pytest.approx(-1)
    # ranks 1 2 3 and 1.5 1.5 3: covariance 1.5, variances 2 and 1.5
    assert rank_correlation([(1, 0), (2, 0), (3, 7)]) == pytest.approx(1.5 / 3**0.5)
    assert rank_correlation([(1, 1), (2, 2)]) is None
    assert rank_correlation([(1, 1), (2, 1), (3, 1)]) is None


def test_a_rows_curve_is_the_mean_of_its_seeds(folder: Path) -> None:
    runs = [{"folder": f"slow/seed-{seed}"} for seed in (0, 1)]
    assert list(pictures.curve(folder, runs, "projection_deviation")) == [(5, 1.0), (10, 1.5)]
    assert list(pictures.curve(folder, runs, "projection_rank")) == []


@pytest.mark.parametrize("shape", ["bars", "curves"])
def test_all_files_are_written(folder: Path, shape: str) -> None:
    plan = yaml.safe_load((folder / "table.yaml").read_text())
    plan["table"]["shape"] = shape
    (folder / "table.yaml").write_text(yaml.safe_dump(plan))
    summary = write_tables(folder)
    assert json.loads((folder / "table.json").read_text()) == summary
    for name in ("table.md", "table.csv", "table.tex", "picture.png", "curves.png"):
        assert (folder / name).stat().st_size > 100
