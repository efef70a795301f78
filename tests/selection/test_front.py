"""Error against cost as numbers: to a file and back, and what a changed file is told."""

import json

import numpy as np
import pytest

from bayesprune.errors import PosteriorError
from bayesprune.selection.front import FRONT, FrontFigures, read_front, write_front

NUMBERS = ("cost", "error", "mask_cost", "mask_error", "cost_interval", "error_interval")


def front(points=3):
    cost, error = np.linspace(40, 10, points), np.linspace(1, 3, points)
    ends = np.stack([error - 0.5, error + 0.25], 1)
    return FrontFigures(
        cost, np.stack([cost - 1, cost + 2], 1), error, ends, cost, error, "macs", "rmse", "as is"
    )


def test_a_file_gives_the_same_numbers(tmp_path):
    write_front(front(), tmp_path / FRONT)
    found = read_front(tmp_path / FRONT)
    for name in NUMBERS:
        assert np.array_equal(getattr(found, name), getattr(front(), name)), name
    assert (found.cost_name, found.error_name, found.conditions) == ("macs", "rmse", "as is")
    assert str(found) == str(front()) and len(found) == 3 and found.undominated.all()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("error"), "error is missing"),
        (lambda c: c["cost"].pop(), "columns differ in length"),
        (lambda c: c["error_interval"][1].append(3.0), "columns differ in length"),
        (lambda c: c["cost"].__setitem__(0, -1.0), "cost"),
        (lambda c: c.__setitem__("cost_name", "joules"), "cost_name"),
        (lambda c: c["error"].__setitem__(0, None), "error"),
    ],
)
def test_a_changed_file_is_named(tmp_path, change, message):
    write_front(front(), tmp_path / FRONT)
    content = json.loads((tmp_path / FRONT).read_text())
    change(content)
    (tmp_path / FRONT).write_text(json.dumps(content))
    with pytest.raises(PosteriorError, match=f"{FRONT}.*{message}"):
        read_front(tmp_path / FRONT)


def test_errors_that_are_not_finite_are_not_written(tmp_path):
    broken = front()
    broken.error[1] = np.nan
    with pytest.raises(PosteriorError, match="not finite"):
        write_front(broken, tmp_path / FRONT)
    assert not (tmp_path / FRONT).exists()
    with pytest.raises(PosteriorError, match=FRONT):
        read_front(tmp_path / FRONT)
