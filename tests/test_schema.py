"""Every shape takes what is of it, and names the place and the value of what is not."""

import math
from typing import Any

import pytest

from bayesprune.errors import RunFolderError
from bayesprune.schema import (
    Anything,
    Either,
    Items,
    Nothing,
    Number,
    Record,
    Shape,
    Table,
    Text,
    Truth,
    check,
    nullable,
)

SEED = Record({"seed": Number(0, whole=True), "groups": Items(Text(), least=1)}, {"score": Number()})


@pytest.mark.parametrize(
    ("shape", "value", "problems"),
    [
        (Number(), 3, []),
        (Number(), -1.5, []),
        (Number(), True, ["it is True, not a number"]),
        (Number(), math.nan, ["it is nan, not a number"]),
        (Number(), math.inf, ["it is inf, not a number"]),
        (Number(), 10**400, []),
        (Number(least=0), -1, ["it is -1, not a number of at least 0"]),
        (Number(0, 1), 1.5, ["it is 1.5, not a number of 0 to 1"]),
        (Number(whole=True), 1.0, ["it is 1.0, not a whole number"]),
        (Text(), "", []),
        (Text(), None, ["it is None, not text"]),
        (Text(("macs", "params")), "mac", ["it is 'mac', not 'macs' or 'params'"]),
        (Truth(), False, []),
        (Truth(), 0, ["it is 0, not true or false"]),
        (Nothing(), None, []),
        (Nothing(), 0, ["it is 0, not null"]),
        (Anything(), object, []),
        (Items(Number()), [1, "a", 2, None], ["[1] is 'a', not a number", "[3] is None, not a number"]),
        (Items(Number()), {"a": 1}, ["it is an object of 1, not a list"]),
        (Items(Number(), least=1), [], ["it is a list of 0, not a list of at least 1"]),
        (Table(Number()), {"a": 1, "b": []}, ["b is a list of 0, not a number"]),
        (Table(Number()), [], ["it is a list of 0, not an object"]),
        (SEED, {"seed": 0, "groups": ["a"], "more": object}, []),
        (SEED, {"seed": -1}, ["seed is -1, not a whole number of at least 0", "groups is missing"]),
        (SEED, {"seed": 1, "groups": ["a"], "score": "1"}, ["score is '1', not a number"]),
        (SEED, None, ["it is None, not an object"]),
        (nullable(Number()), None, []),
        (nullable(Number()), "a", ["it is 'a', not a number or null"]),
        (Either((Number(), Table(Number()))), {"conv1": "a"}, ["conv1 is 'a', not a number"]),
    ],
)
def test_what_is_wrong_with_a_value(shape: Shape, value: Any, problems: list[str]) -> None:
    assert list(shape.problems(value, "")) == problems


def test_the_error_names_the_first_five_places_and_how_many_more() -> None:
    with pytest.raises(RunFolderError) as caught:
        check({"rows": list("abcdefg")}, Record({"rows": Items(Number())}), "x.json", RunFolderError)
    text = str(caught.value)
    assert text.startswith("x.json: rows[0] is 'a', not a number; rows[1]")
    assert text.endswith("rows[4] is 'e', not a number; and 2 more. It was changed.")


def test_long_names_and_values_are_cut() -> None:
    (problem,) = Table(Number()).problems({"k" * 1000: "v" * 1000}, "")
    assert len(problem) < 120
