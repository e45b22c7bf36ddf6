"""Options of the protocols: parsed by type, listed with their defaults."""

import pytest

from byol.errors import UserError
from byol.protocols import PROTOCOLS, flags, parse


def test_one_number_is_a_list_of_one() -> None:
    assert parse("knn", {"k": 5}).k == (5,) == parse("knn", {"k": "5"}).k
    assert parse("knn", {"k": "1 20", "temperature": 0.1}).temperature == (0.1,)


def test_a_wrong_name_or_value_is_a_sentence() -> None:
    with pytest.raises(UserError, match="did you mean temperature"):
        parse("knn", {"temprature": 1})
    with pytest.raises(UserError, match="k is '1,two', which is not a list of numbers"):
        parse("knn", {"k": "1,two"})


def test_every_option_has_a_sentence_and_lists_are_shown_as_typed() -> None:
    shown = {name: sentence for name, _, sentence in flags("knn")}
    assert shown["k"].endswith(" (20)") and shown["baselines"].endswith(" (true)")
    assert all(len(row[2]) > 10 for name in PROTOCOLS for row in flags(name))
