"""From rows to runs: shares of the base, commands that parse again, shared runs."""

import shlex

import pytest

from byol.config import Config
from byol.errors import UserError
from byol.lab.plan import plain, plan
from byol.lab.rows import Row, Table
from byol.lab.tables import TABLES
from byol.options import with_options
from byol.parser import build_parser

BASE = with_options(Config(), {"base_lr": 0.3, "tau_base": 0.95, "batch_size": 64})


def table(*rows: Row) -> Table:
    return Table("mine", "", "", "", rows, rows[0].name)


def test_shares_by_hand() -> None:
    asked = {
        "base_lr": "x1/3",
        "tau_base": "x2",  # horizon 20 steps -> 40
        "norm_images": "x1/4 of batch_size",
        "projection_size": "x0.5",
        "hidden_size": "x1/100000",
        "weight_decay": 0.5,
        "model": "xcit_tiny",
    }
    assert plain(asked, BASE) == {
        "base_lr": 0.1,
        "tau_base": 0.975,
        "norm_images": 16,
        "projection_size": 128,
        "hidden_size": 1,
        "weight_decay": 0.5,
        "model": "xcit_tiny",
    }
    assert plain({"tau_base": "x1/40"}, BASE) == {"tau_base": 0}  # a horizon below one step
    with pytest.raises(UserError, match="no number"):
        plain({"model": "x2"}, BASE)


def test_rows_of_one_configuration_share_a_run() -> None:
    rows = (Row("a"), Row("b", {"view1_flip": 0.5}), Row("c", {"view1_flip": 0.0}))
    runs = plan(table(*rows), "digits", None, 2, {"epochs": 3, "batch_size": 64, "seed": 5})
    assert [run.seed for run in runs] == [5, 5, 5, 6, 6, 6]
    assert [run.folder for run in runs[:3]] == ["a/seed-5", "a/seed-5", "c/seed-5"]
    assert runs[0].words == runs[1].words != runs[2].words


def test_devices_take_turns_and_stay_with_their_row() -> None:
    rows = tuple(Row(f"r{i}", {"alpha": 0.1 + i}) for i in range(3))
    runs = plan(table(*rows), "digits", None, 1, {"device": "cuda:0,cuda:1"})
    assert [run.words[-1] for run in runs] == ["cuda:0", "cuda:1", "cuda:0"]


def test_an_epochs_row_follows_the_rule_and_an_unknown_option_is_refused() -> None:
    """A row that changes what the rule starts from is not the baseline with another length."""
    rows = (Row("a"), Row("longer", {"epochs": 40}), Row("same", {"epochs": 3}))
    runs = plan(table(*rows), "digits", None, 1, {"epochs": 3})
    assert [run.folder for run in runs] == ["a/seed-0", "longer/seed-0", "a/seed-0"]
    with pytest.raises(UserError, match="base_lr"):
        plan(table(Row("a", {"base_lrr": 1})), "digits", None, 1, {})
    with pytest.raises(UserError, match="differ more"):
        plan(table(Row("a b"), Row("a-b")), "digits", None, 1, {})


@pytest.mark.parametrize("name", list(TABLES))
def test_printed_commands_parse_again(name: str) -> None:
    runs = plan(TABLES[name], "digits", "demo", 1, {"epochs": 2.0, "final_linear": False})
    firsts = {run.folder: run for run in reversed(runs)}
    assert set(firsts) == {run.folder for run in runs}
    for run in firsts.values():
        program, *words = shlex.split(run.command("some where"))
        found = vars(build_parser().parse_args(words))
        assert (program, found["data"], found["recipe"]) == ("byol", "digits", "demo")
        assert (found["epochs"], found["final_linear"]) == ("2", "false")
        assert found["out"] == f"some where/{run.folder}"
        parsed = with_options(Config(), {name: found[name] for name in run.values})
        assert parsed == with_options(Config(), run.values)
