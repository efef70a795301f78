"""What a run leaves of price and evidence, and what it says where there is none."""

from pathlib import Path

import torch
from torch import nn

import bayesprune as bp
from bayesprune.cli.gains import ROWS, write_gains
from bayesprune.data import Split
from bayesprune.posterior.evidence import EVIDENCE, read_evidence


def fitted(rows):
    torch.manual_seed(0)
    x = torch.randn(rows, 4)
    split = Split(x, (x[:, 0] > 0).long())
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=3.0))
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=rows))
    return bp.fit(gated, (split.x, split.y), epochs=3, batch_size=64, progress=False), split


def test_every_unit_has_its_price_and_gain_and_the_nearest_exactly(tmp_path: Path) -> None:
    result, train = fitted(ROWS + 100)
    write_gains(result, train, tmp_path)
    table = read_evidence(tmp_path / EVIDENCE)
    assert len(table) == sum(result.gated.kept().values())
    assert (table.price == 3.0).all()
    assert 0 < int((~torch.isnan(torch.from_numpy(table.exact))).sum()) <= 10
    assert f"{ROWS} rows scaled up to {ROWS + 100}" in table.conditions


def test_where_there_is_none_it_is_said_and_nothing_is_lost(tmp_path: Path, capsys) -> None:
    result, train = fitted(200)
    with torch.no_grad():
        next(result.gated.network.parameters()).fill_(float("nan"))
    write_gains(result, train, tmp_path)
    said = capsys.readouterr().err
    assert "no evidence.json was written" in said and "not finite" in said
    assert not (tmp_path / EVIDENCE).exists()
