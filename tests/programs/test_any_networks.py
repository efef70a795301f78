"""Programs whose networks are deep or no chains, on small digits: they learn, and units go exactly.

Images of 8 × 8 make a step cheap; the networks are the shipped ones, at their full width and depth.
"""

import copy
from dataclasses import replace
from functools import cache

import pyro
import pytest
import torch

import bayesprune as bp
from bayesprune.programs import load_model
from tests.programs.small import ANY_NETWORK, FAST

ROWS, EPOCHS, BATCH_SIZE = 300, 6, 30
pytestmark = pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")


@cache
def rows(name):
    """The program's own kind of rows: (training split, test split)."""
    program = load_model(name)
    data = program.data() if program.data else bp.data.digits(size=8)
    return bp.data.Split(data.train.x[:ROWS], data.train.y[:ROWS]), data.test


@cache
def _gated(name):
    pyro.set_rng_seed(0)
    return load_model(name).model(rows(name)[0], 10, None)


def gated_at(name, price=None):
    """The program's model on a few rows; tracing a network takes seconds, so that is done once."""
    gated = copy.deepcopy(_gated(name))
    if price is not None:
        gated = gated.with_prior(bp.priors.BernoulliGates(bp.priors.Flattening(price)))
    return gated


@pytest.mark.parametrize("name", ANY_NETWORK)
def test_its_units_are_what_goes_together(name):
    sizes = {group.name: group.size for group in gated_at(name).groups}
    assert sizes == ANY_NETWORK[name]


@pytest.mark.parametrize("name", ANY_NETWORK)
def test_its_network_pruned_is_its_network_masked(name):
    """At random gates, one in three closed; in float64 to 1e-10; and of the same class as before."""
    gated = gated_at(name).double().eval()
    closed = torch.rand(len(gated.log_odds), generator=torch.Generator().manual_seed(0)) < 1 / 3
    gated.log_odds.data = torch.where(closed, -5.0, 5.0).double()
    x = rows(name)[1].x[:20]
    x = x.double() if x.is_floating_point() else x
    with torch.no_grad():
        masked = gated.outputs(x, gated.by_group((~closed).double()))
        whole = gated.outputs(x, gated.by_group(torch.ones_like(gated.log_odds)))
        small = bp.prune(gated)
        torch.testing.assert_close(small(x), masked, rtol=1e-10, atol=1e-10)
    assert (whole - masked).abs().max() > 1e-3  # it mattered
    assert sum(p.numel() for p in small.parameters()) < 0.7 * gated.dense_parameters
    assert type(small).__name__ == type(getattr(gated.network, "network", torch.nn.Sequential())).__name__


@pytest.mark.parametrize("name", ANY_NETWORK)
def test_it_adapts_to_the_data(name):
    """Other channels, sizes and classes: the network runs, and gives as many outputs as there are classes."""
    x = torch.rand(4, 3, 24, 28) if rows(name)[0].x.is_floating_point() else torch.randint(5, (4, 30))
    gated = load_model(name).model(bp.data.Split(x, torch.tensor([0, 1, 2, 0])), 3, None)
    gates = {group.name: torch.ones(group.size) for group in gated.groups}
    assert gated.outputs(x, gates).shape == (4, 3)


@pytest.mark.parametrize("name", ANY_NETWORK)
def test_it_learns_and_prunes(name):
    """What comes out does what the gated network did, is smaller, and fits better than at the start."""
    train, test = rows(name)
    program = load_model(name)
    result = bp.fit(
        gated_at(name, price=3.0), (train.x, train.y), epochs=EPOCHS, batch_size=BATCH_SIZE,
        recipe=replace(program.recipe, **FAST), progress=False,
    )  # fmt: skip
    assert result.undecided == 0 and all(kept > 0 for kept in result.architecture)
    assert sum(result.architecture) < sum(ANY_NETWORK[name].values())
    assert result.history[-1].nll < 0.8 * result.history[0].nll
    small, gated = bp.prune(result).eval(), result.gated.eval()
    with torch.no_grad():
        kept = {group: torch.ones(left) for group, left in gated.kept().items()}
        torch.testing.assert_close(small(test.x), gated.network(test.x, kept), rtol=1e-5, atol=1e-5)
