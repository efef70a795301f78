"""A small trained network, with rows that it has never seen."""

import pytest
import torch
from torch import nn

import bayesprune as bp


@pytest.fixture(scope="session")
def digits():
    """Training rows (900), and rows to calibrate with (897)."""
    data = bp.data.load("digits")
    x, y = torch.cat([data.train.x, data.test.x]), torch.cat([data.train.y, data.test.y])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    first, second = order[:900], order[900:]
    return (x[first], y[first]), (x[second], y[second])


@pytest.fixture(scope="session")
def network(digits):
    (x, y), _ = digits
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 40), nn.ReLU(), nn.Linear(40, 10))
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(40):
        for rows in torch.randperm(len(x)).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimiser.step()
    return network.eval()


@pytest.fixture(scope="session")
def certify(network, digits):
    """certify(**changes) → what bp.certify finds, on rows known to be held out, without a bar."""
    (x_train, _), rows = digits

    def certify(**changes):
        settings = {"alpha": 0.08, "trained_on": x_train, "progress": False, "rows": rows, **changes}
        return bp.certify(
            changes.pop("network", network), settings.pop("rows"), **_without(settings, "network")
        )

    return certify


def _without(settings, name):
    return {key: value for key, value in settings.items() if key != name}
