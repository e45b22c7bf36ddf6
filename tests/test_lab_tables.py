"""The named tables: the published figures, and options that exist and work on a base."""

from pathlib import Path

import pytest
import yaml

from byol.checks import check
from byol.errors import UserError
from byol.lab.plan import plain
from byol.lab.tables import TABLES, open_table
from byol.options import with_options
from byol.recipes import build

NAMES = (
    "table5a table5b batch-size augmentations architecture learning-rate weight-decay "
    "loss-normalisation alpha-beta predictor-lr predictor-projector-lr without-batch-statistics "
    "relatives"
)
ROWS = (5, 13, 14, 28, 14, 7, 5, 4, 19, 7, 26, 7, 7)


def figures(name: str, method: str = "BYOL") -> list[float | None]:
    return [row.paper for row in TABLES[name].rows if row.method == method]


def test_every_table_is_there_with_all_its_rows() -> None:
    assert list(TABLES) == NAMES.split()
    assert tuple(len(table.rows) for table in TABLES.values()) == ROWS


def test_figures_are_the_published_ones() -> None:
    assert figures("table5a") == [18.8, 69.8, 72.5, 68.4, 0.3]
    assert figures("table5b")[1:] == [
        70.9, 70.7, 70.2, 69.4, 70.1, 69.2, 69.0, 5.5, 0.3, 0.2, 0.1, 0.1
    ]  # fmt: skip
    assert figures("batch-size") == [72.5, 72.4, 72.2, 72.2, 71.8, 69.6, 59.7]
    assert figures("batch-size", "SimCLR") == [67.9, 67.8, 67.4, 66.5, 64.3, 63.6, 59.2]
    assert figures("augmentations") == [
        72.5, 71.9, 71.2, 63.4, 71.8, 70.3, 72.4, 72.3, 72.2, 72.5, 59.4, 60.1, 70.7, 61.1
    ]  # fmt: skip
    assert figures("augmentations", "SimCLR") == [
        67.9, 67.3, 65.2, 45.7, 63.7, 61.9, 67.5, 67.7, 67.4, 68.1, 40.3, 40.2, 64.2, 41.7
    ]  # fmt: skip
    assert figures("architecture")[:9] == [61.9, 65.0, 65.7, 71.5, 72.5, 71.4, 71.4, 72.1, 72.1]
    assert figures("learning-rate") == [34.8, 65.0, 71.7, 72.5, 72.3, 71.5, 69.4]
    assert figures("weight-decay") == [72.1, 72.6, 72.5, 71.0, 69.6]
    assert figures("loss-normalisation") == [72.5, 72.5, 67.4, 65.3]
    assert figures("predictor-lr") == [72.5, 0.01, 5.5, 62.8, 66.6, 66.3, 52.5]
    assert figures("without-batch-statistics")[:3] == [74.3, 73.9, 65.7]
    assert figures("relatives")[:4] == [74.3, 69.3, 71.3, 74.6]
    rows = {row.name: row for row in TABLES["alpha-beta"].rows}
    assert rows["beta 1, alpha 0.01"].paper == 53.9
    assert rows["beta 0.5, alpha 3"].overrides == {"beta": 0.5, "alpha": 3.0}
    rows = {row.name: row for row in TABLES["predictor-projector-lr"].rows}
    assert rows["projector x 2, predictor x 5"].paper == 60.9
    assert rows["projector x 5, predictor x 2"].paper == 2.5


@pytest.mark.parametrize("name", NAMES.split())
def test_every_row_works_on_the_demo_and_differs_from_the_baseline(name: str) -> None:
    table = TABLES[name]
    base, _ = build("demo", 4000, epochs=12)
    for row in table.rows:
        baseline = table.baseline_of(row.method)
        assert baseline is not None
        if row.overrides.get("accumulation") == 64:
            continue  # the demo's batches of 64 would be single images, which batch norm refuses
        check(with_options(base, plain(row.overrides, base)))
        assert row is baseline or row.overrides != baseline.overrides


def test_on_the_papers_base_shares_are_the_papers_values() -> None:
    base, _ = build("paper-300")

    def values(name: str, option: str) -> list[float]:
        rows = [plain(row.overrides, base) for row in TABLES[name].rows]
        return [row[option] for row in rows if option in row]

    assert values("table5a", "tau_base") == [1, 0.999, 0.9, 0]
    assert values("learning-rate", "base_lr") == [0.01, 0.1, 0.2, 0.4, 0.5, 1]
    assert values("weight-decay", "weight_decay") == [1e-7, 5e-7, 5e-6, 1e-5]
    assert values("architecture", "projection_size") == [16, 32, 64, 128, 512]
    assert [4096 // n for n in values("batch-size", "accumulation")[:7]] == [
        4096, 2048, 1024, 512, 256, 128, 64
    ]  # fmt: skip


def test_an_augmentation_row_leaves_what_it_names() -> None:
    rows = {row.name: row for row in TABLES["augmentations"].rows if row.method == "BYOL"}
    base, _ = build("demo", 4000)
    left = with_options(base, rows["crop, colour"].overrides)
    for before, view in ((base.view1, left.view1), (base.view2, left.view2)):
        assert (view.flip, view.blur, view.solarize) == (0, 0, 0)
        assert (view.jitter, view.grey) == (before.jitter, before.grey)
        assert view.crop_area_min == before.crop_area_min


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    rows = [{"name": "plain", "paper": 70}, {"name": "fast", "overrides": {"base_lr": "x2"}}]
    path.write_text(yaml.safe_dump({"rows": rows, "question": "Faster?"}))
    table = open_table(str(path))
    assert (table.name, table.baseline, table.question) == ("mine", "plain", "Faster?")
    assert table.rows[1].overrides == {"base_lr": "x2"} and table.rows[0].paper == 70


@pytest.mark.parametrize("text", ["", "rows: 3", "rows: []", "rows: [{paper: 1}]", "rows: [1]"])
def test_a_file_that_is_no_table_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match="is no table"):
        open_table(str(tmp_path / "bad.yaml"))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match="augmentations"):
        open_table("augmentation")
