"""Every inference that ships, on a network of ten gates: it finds the input that matters, and resumes."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import SettingsError
from bayesprune.programs import available, load_inference
from tests.programs.small import FAST

ROWS = 200
NAMES = ["enumerate_exact", "svi_shrink", "svi_spike_slab", "svi_spike_slab_published"]
POSTERIORS = ["nuts_reference", "svi_structured"]  # whole posteriors of small problems: test_posteriors.py


@pytest.fixture(scope="module")
def train():
    """Two classes by the sign of input 0; input 1 is noise, and inputs 2 and 3 are always zero."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 4, generator=generator)
    x[:, 2:] = 0.0
    return bp.data.Split(x, (x[:, 0] > 0).long())


def gate(hidden=6, weights=None):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=6.0))
    return bp.gate(
        network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=ROWS), weights=weights
    )


def infer(name, train, gated=None, **settings):
    settings = {
        "epochs": 25, "batch_size": 40, "seed": 0, "recipe": bp.Recipe(**FAST, learning_rate=1e-2),
        "device": "cpu", "checkpoint": None, "resume": False, "progress": False, **settings,
    }  # fmt: skip
    if gated is None:
        gaussian = bp.priors.NormalWeights(posterior="normal", initial_scale=0.1)
        gated = gate(weights=gaussian if name.startswith("svi_spike_slab") else None)
    return load_inference(name).infer(gated, train, **settings)


def test_every_inference_is_tested():
    assert [program.name for program in available("inference")] == sorted(NAMES + POSTERIORS)


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_what_matters_and_removes_what_cannot(name, train):
    result = infer(name, train)
    assert result.gated.by_group(result.gated.alive)["input"].tolist() == [True, False, False, False]
    assert 1 <= result.gated.kept()["0"] < 6
    small = bp.prune(result)
    assert small[-1].weight.shape == (2, result.gated.kept()["0"])
    assert bp.evaluate(small, (train.x, train.y), bp.Categorical(rows=ROWS)).score < 15


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_from_its_checkpoints(name, train, tmp_path):
    whole = infer(name, train, epochs=6)
    infer(name, train, epochs=6, checkpoint=tmp_path / "kept")
    sorted((tmp_path / "kept").iterdir())[-1].unlink()
    resumed = infer(name, train, epochs=6, checkpoint=tmp_path / "kept", resume=True)
    assert resumed.gated.kept() == whole.gated.kept()
    for key, value in whole.gated.state_dict().items():
        assert torch.equal(value, resumed.gated.state_dict()[key]), key


def test_enumeration_of_the_whole_data_draws_nothing(train):
    """Seeds only order the rows then, which changes rounding alone."""
    exact = bp.data.Split(train.x.double(), train.y)
    one, two = (
        infer("enumerate_exact", exact, gate().double(), batch_size=ROWS, seed=seed, epochs=10)
        for seed in (0, 1)
    )
    assert one.history[-1].elbo != one.history[0].elbo
    assert one.gated.kept() == two.gated.kept()
    for a, b in zip(one.history, two.history, strict=True):
        torch.testing.assert_close(a.inclusion, b.inclusion, rtol=1e-9, atol=1e-9)
        assert a.elbo == pytest.approx(b.elbo, rel=1e-9)


def test_enumeration_refuses_more_than_a_dozen(train):
    with pytest.raises(SettingsError, match=r"13 gates have 2\^13 configurations"):
        infer("enumerate_exact", train, gate(hidden=9))
