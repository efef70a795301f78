"""What ``import bayesprune as bp`` offers: every promised name; a network goes to files and back."""

from pathlib import Path

import torch
from torch import nn

import bayesprune as bp


def test_every_promised_name_is_there() -> None:
    assert [name for name in bp.__all__ if not hasattr(bp, name)] == []
    assert len(set(bp.__all__)) == len(bp.__all__)


def test_a_pruned_network_goes_to_files_and_back(tmp_path: Path) -> None:
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))
    network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    small = bp.prune(bp.gate(network, torch.zeros(1, 3), prior=prior, likelihood=bp.Categorical(rows=8)))
    x = torch.randn(4, 3)
    bp.save(small, tmp_path / "saved", example=x)
    bp.export(small, tmp_path / "exported")
    for folder in ("saved", "exported"):
        assert torch.equal(bp.load(tmp_path / folder)(x), small(x))
