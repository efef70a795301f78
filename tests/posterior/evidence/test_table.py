"""The table and its plot show what was found, at any time of a fit; bad questions are refused in words."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import (
    DataError,
    EmptyGroupWarning,
    LikelihoodError,
    PosteriorError,
    SettingsError,
)
from bayesprune.posterior import plot_evidence
from bayesprune.svi.batches import Batches
from bayesprune.svi.training import Training
from tests.svi.fits import FAST, data, gated_for


@pytest.fixture(scope="module")
def result():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        return bp.fit(gated_for(), data(), epochs=6, batch_size=16, recipe=bp.Recipe(**FAST), progress=False)


@pytest.fixture(scope="module")
def halfway():
    """Two of six epochs: gates on their way."""
    batches = Batches(data(), 16, torch.device("cpu"), 0)
    gated = copy.deepcopy(gated_for())
    training = Training(gated, steps=6 * batches.steps, recipe=bp.Recipe(**FAST), rows=batches)
    for epoch in range(2):
        for batch in batches.epoch(epoch):
            training.step_on_([batch])
    return gated


def test_after_the_fit_only_what_is_left_is_listed_and_nothing_is_drawn(result):
    table = result.evidence(data(), units="all", progress=False)
    assert len(table) == sum(result.gated.kept().values()) < 16 + 8 + 4
    assert table.removed == {g.name: g.size - result.gated.kept()[g.name] for g in result.gated.groups}
    for name, mask in result.gated.by_group(result.gated.alive).items():
        assert table.unit[table.group == name].tolist() == mask.nonzero().squeeze(1).tolist()
    assert not table.exact_error.any() and bool((table.inclusion > 0.999).all())
    assert (
        "other gates as decided" in table.conditions
        and "±" not in str(table).split("Nats")[0].split("\n", 1)[1]
    )
    assert "Removed, so that nothing can be said of them: " in str(table)


def test_in_the_middle_of_a_fit_gates_are_drawn(halfway):
    table = bp.evidence(halfway, data(), units=3, progress=False)
    assert bool((table.estimate_error > 0).all()) and int(np.isfinite(table.exact).sum()) == 3
    by_estimate = np.argsort(np.abs(table.estimate - table.price), kind="stable")[:3]
    assert set(by_estimate) == set(np.flatnonzero(np.isfinite(table.exact)))
    assert "drawn from q(z) for every row, 4 draws" in table.conditions
    assert " ".join(str(table).split()).endswith(table.conditions)


def test_the_nearest_to_the_line_come_first(halfway):
    table = bp.evidence(halfway, data(), units=5, progress=False)
    order = table.nearest(len(table))
    assert bool((np.diff(np.abs(table.margin[order])) >= 0).all())
    np.testing.assert_array_equal(table.gain, np.where(np.isnan(table.exact), table.estimate, table.exact))
    heading, *lines = table.describe(4).splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        [table.group[i], str(table.unit[i])] for i in order[:4]
    ]
    assert lines[4].startswith("4 of ") and len({len(line) for line in [heading, *lines[:4]]}) == 1
    assert float(lines[0].split()[-1]) == pytest.approx(table.margin[order[0]], rel=0.006)


def test_as_a_data_frame(halfway):
    table = bp.evidence(halfway, data(), units={"0": [1]}, progress=False)
    frame = table.to_dataframe()
    assert frame.index.names == ["group", "unit"] and len(frame) == len(table)
    place = int(np.flatnonzero((table.group == "0") & (table.unit == 1))[0])
    assert frame.loc[("0", 1), "exact"] == table.exact[place]
    assert frame["exact"].notna().sum() == 1 and frame.loc[("0", 1), "margin"] == table.margin[place]


def test_the_plot_has_every_unit_and_names_the_nearest(halfway):
    table = bp.evidence(halfway, data(), units=2, progress=False)
    ax = plot_evidence(table, label=3)
    drawn = np.concatenate([c.lines[0].get_xydata() for c in ax.containers])
    expected = np.stack([table.price, table.gain], 1)
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, expected))
    named = {text.get_text() for text in ax.texts}
    assert named == {f"{table.group[i]} {table.unit[i]}" for i in table.nearest(3)}
    assert ax.get_title() == f"{(table.margin >= 0).sum()} of {len(table)} units save more than their price"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend[:1] == [f"{table.group[0]} ({(table.group == table.group[0]).sum()})"]
    assert legend[-2:] == ["exact", "estimated"]
    low, high = ax.get_ylim()
    assert low <= table.gain.min() and table.gain.max() <= high
    ax.figure.canvas.draw()  # scales accept all values
    left, right = ax.get_xlim()
    assert sum(left <= tick <= right for tick in ax.get_xticks()) >= 2  # prices can be read
    colours = {text.get_color() for text in ax.get_legend().get_texts()}
    assert colours == {"black"} and not ax.get_legend().get_frame_on()


def test_negative_prices_can_be_drawn():
    gated = bp.gate(
        nn.Sequential(nn.Linear(3, 2)), torch.zeros(1, 3),
        prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.8)), likelihood=bp.Categorical(rows=20),
    )  # fmt: skip
    ax = plot_evidence(bp.evidence(gated, (torch.randn(20, 3), torch.randint(2, (20,))), progress=False))
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    assert low < -np.log(4) < high


def test_everything_wrong_is_said_at_once(result):
    gone = int((~result.gated.by_group(result.gated.alive)["0"]).nonzero()[0])
    with pytest.raises(PosteriorError) as raised:
        bp.evidence(result, data(), units={"0": [gone, 99, 0.5], "none": [1], "5": 3}, others="mean", draws=0)
    message = str(raised.value)
    for part in (
        f"{gone} of '0' was removed", "99 is no unit of '0', which has 0 … 3", "0.5 is no unit",
        "'none' is no group (there are '0', ", "'5' has 3, and needs numbers of units",
        "others='mean' must be 'posterior' or 'hard'", "draws=0 must be a whole number, at least 1",
    ):  # fmt: skip
        assert part in message, message


@pytest.mark.parametrize("units", [-1, "some", None, True, 1.5])
def test_bad_units(units, result):
    with pytest.raises(PosteriorError, match="units="):
        bp.evidence(result, data(), units=units, progress=False)


def test_bad_sources_and_rows(result):
    x, y = data()
    with pytest.raises(PosteriorError, match="takes the result of fit"):
        bp.evidence(bp.prune(result), (x, y))
    with pytest.raises(DataError, match="inputs alone"):
        bp.evidence(result, x)
    with pytest.raises(PosteriorError, match="97 rows, and the model was fitted to 96"):
        bp.evidence(result, (torch.cat([x, x[:1]]), torch.cat([y, y[:1]])))
    with pytest.raises(LikelihoodError, match="targets run from 0 to 7"):
        bp.evidence(result, (x, y.index_fill(0, torch.tensor([5]), 7)))
    with pytest.raises(SettingsError, match="estimator='curvy' is not known"):
        bp.evidence(result, (x, y), estimator="curvy")
    with pytest.raises(PosteriorError, match=r"ARM sees nothing of \d+ gates that are decided"):
        bp.evidence(result, (x, y), estimator="arm")
    with pytest.raises(DataError, match="inputs hold NaN or infinity, first in row 0"):
        bp.evidence(result, (torch.full_like(x, torch.nan), y), progress=False)
    broken = copy.deepcopy(result.gated)
    next(iter(broken.weight_tensors().values())).data.fill_(torch.nan)
    with pytest.raises(PosteriorError, match="gains are not finite"):
        bp.evidence(broken, (x, y), progress=False)


def test_a_bar_is_shown_on_stderr(result, capsys, monkeypatch):
    monkeypatch.setattr("bayesprune.terminal.is_terminal", lambda: True)
    result.evidence(data(), units=1)
    captured = capsys.readouterr()
    assert "estimate" in captured.err and "leave out 1" in captured.err and not captured.out
