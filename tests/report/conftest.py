"""Folders of runs as `bayesprune run` leaves them, made in a second: one seed, two seeds, other prices."""

import contextlib
import shutil

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.cli.diagnose import write_posterior
from bayesprune.cli.measure import measure, over_seeds
from bayesprune.cli.settings import Settings, versions
from bayesprune.files import write_json
from bayesprune.report import build, read_runs

X = torch.randn(160, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0, 0, 0] + X[:, 0, 2, 2] > 0).long()
TEST = bp.data.Split(X[120:], Y[120:])
GROUPS = {"input": 16, "1": 6}


def fitted(seed, price=1.5):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=price))
    gated = bp.gate(network, X[:1], prior=prior, likelihood=bp.Categorical(rows=120))
    gates = bp.GateSteps(learning_rate=0.5, momentum=0.5, clip=1.0, every=1)
    recipe = bp.Recipe(gates=gates, shrink=bp.Shrink(every=3), learning_rate=1e-2)
    train = (X[:120], Y[:120])
    return bp.fit(gated, train, epochs=6, batch_size=20, seed=seed, recipe=recipe, progress=False)


def write_run(folder, seeds, price=None, program="little"):
    """A run's folder from fits of some seeds."""
    figures = []
    for seed in seeds:
        own = folder if len(seeds) == 1 else folder / f"seed-{seed}"
        own.mkdir(parents=True)
        result = fitted(seed, price or 1.5)
        network, measured = measure(result, TEST)
        figures.append({"seed": seed, **measured})
        bp.save(network, own, X[:1])
        write_posterior(result, bp.data.Split(X[:120], Y[:120]), TEST, own)
        if len(seeds) > 1:
            write_json(own / "result.json", figures[-1])
    asked = {"epochs": 6, "batch_size": 20, "seeds": len(seeds), "price": price}
    settings = Settings(program, "svi_shrink", "squares", **asked)
    record = {"settings": settings.to_json(), "versions": versions(), "sha256": {"data": "a1" * 32}}
    write_json(folder / "run.json", record)
    told = {"program": program, "inference": "svi_shrink", "data": "squares", "epochs": 6, "price": price}
    write_json(
        folder / "result.json",
        {**told, "versions": versions(), **over_seeds(figures), "seeds": figures},
    )
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """All runs, made once; tests get copies."""
    base = tmp_path_factory.mktemp("runs")
    write_run(base / "one", [3])
    write_run(base / "two", [0, 1])
    write_run(base / "dear", [3], price=3.0)
    return base


@pytest.fixture(scope="session")
def pages(made):
    """Pages that several tests read: of one seed, of two, and of two runs of different prices."""
    with contextlib.chdir(made):
        return {names: build(read_runs(names.split())) for names in ("one", "two", "one dear")}


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    """A working folder with the runs `one`, `two` and `dear`."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
