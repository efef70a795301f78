"""Certificates of older versions, as files: they are read, printed, and true of what they were of."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bayesprune.certify import Certificate, verify
from bayesprune.certify.paths import Weights

FILES = Path(__file__).parent / "certificates"


def network() -> nn.Sequential:
    """Weights by a formula, so that no generator of random numbers has a part in them."""
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        for parameter in network.parameters():
            numbers = torch.arange(parameter.numel(), dtype=torch.float64)
            value = ((numbers * 37 + parameter.numel() * 11) % 64 - 32) / 32
            parameter.copy_(value.float().reshape(parameter.shape))
    return network


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.arange(1600)
    x = (((numbers * 7919 + numbers * numbers * 31) % 4096 - 2048).float() / 1024).reshape(400, 4)
    y = network()(x).argmax(1)
    return x, torch.where(torch.arange(400) % 50 == 7, (y + 1) % 3, y)


@pytest.mark.parametrize("name", ["fixed_sequence", "split_fixed_sequence"])
def test_it_still_verifies(name: str) -> None:
    """Written before there were rules of several starts, and several risks in one certificate."""
    certificate, whole = Certificate.read(FILES / f"{name}.json"), network()
    shares = [entry["recipe"]["share"] for entry in certificate.record["path"]]
    chosen = certificate.record["certified"]
    small = Weights(shares=shares).candidates(whole, rows()[0])[chosen].build()
    answer = verify(certificate, small, rows(), reference=whole)
    assert answer and answer.complete, answer
    assert "for at most 15 % of new rows" in " ".join(str(certificate).split())
    assert not verify(certificate, whole, rows(), reference=whole)
