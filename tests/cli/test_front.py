"""What a run leaves of error against cost, and of which runs it leaves none."""

import sys

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.cli.front import SHARES, possible, write_front_of
from bayesprune.data import Split
from bayesprune.selection.front import FRONT, read_front


def fitted(rows=400, epochs=3, hidden=6):
    torch.manual_seed(0)
    x = torch.randn(rows, 4)
    split = Split(x, (x[:, 0] > 0).long())
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))
    network = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 2))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=rows))
    return bp.fit(gated, (split.x, split.y), epochs=epochs, batch_size=64, progress=False), split


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(sys.modules["bayesprune.cli.front"], "LEAST_LEARNT", 1000)


def test_points_begin_with_the_network_as_it_was_left(tmp_path, short):
    result, split = fitted()
    write_front_of(result, split, split, tmp_path)
    front = read_front(tmp_path / FRONT)
    left = 100 * result.gated.network.macs() / result.gated.dense_macs
    assert front.mask_cost[0] == pytest.approx(left, rel=1e-6)
    assert len(front) == len(possible(result)) >= 2 and (front.mask_cost <= left * (1 + 1e-9)).all()
    quality = bp.evaluate(bp.prune(result), (split.x, split.y), likelihood=result.likelihood)
    assert front.mask_error[0] == pytest.approx(quality.score, abs=2.5)  # readers re-weighted
    assert front.error_name == "error_percent" and "rows held out" in front.conditions


def test_budgets_are_none_that_no_network_meets():
    result, _ = fitted(hidden=2)
    shares = possible(result)
    assert shares[0] == 1.0 and set(shares) <= set(SHARES)
    smallest = 1 * 1 + 1 * 2  # one input, one unit, two classes
    assert min(shares) * result.gated.network.macs() >= smallest - 1e-9


def test_trials_and_large_networks_have_none(tmp_path, monkeypatch):
    result, split = fitted()
    write_front_of(result, split, split, tmp_path)  # 1,200 rows
    assert not (tmp_path / FRONT).exists()
    own = sys.modules["bayesprune.cli.front"]
    monkeypatch.setattr(own, "LEAST_LEARNT", 1000)
    monkeypatch.setattr(own, "MOST_MACS", 1)
    write_front_of(result, split, split, tmp_path)
    assert not (tmp_path / FRONT).exists()


def test_where_there_is_none_it_is_said_and_nothing_is_lost(tmp_path, short, capsys):
    result, split = fitted()
    with torch.no_grad():
        next(result.gated.network.parameters()).fill_(float("nan"))
    write_front_of(result, split, split, tmp_path)
    assert "no front.json was written" in capsys.readouterr().err
    assert not (tmp_path / FRONT).exists()
