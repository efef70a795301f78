"""Sums over masks against an enumeration of all of them, written here in numpy."""

import itertools

import numpy as np
import pytest
import torch
from scipy.special import betaln
from torch import nn

import bayesprune as bp
from bayesprune.errors import PosteriorError
from bayesprune.posterior import corrected_inclusion

ROWS, WEIGHT, NOISE = 60, 0.35, 1.0


def log_prior(prior: bp.priors.BernoulliGates, masks: np.ndarray) -> np.ndarray:
    """(masks,), nats: by the formulas of the three."""
    on, off = masks.sum(1), (1 - masks).sum(1)
    hyper = prior.hyper
    if isinstance(hyper, bp.priors.Fixed):
        return on * np.log(0.3) + off * np.log(0.7)
    if isinstance(hyper, bp.priors.Beta):
        return betaln(2.0 + on, 3.0 + off) - betaln(2.0, 3.0)
    return -2.0 * on  # Flattening(2): the price of each


PRIORS = [bp.priors.Fixed(0.3), bp.priors.Beta(2.0, 3.0), bp.priors.Flattening(2.0)]


def problem(prior, units=8, correlation=0.6, seed=0):
    """A gated linear model of fixed weights, its rows, and all masks with their log-joint."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(ROWS, 1, generator=generator)
    x = correlation**0.5 * shared + (1 - correlation) ** 0.5 * torch.randn(ROWS, units, generator=generator)
    weights = torch.full((units,), WEIGHT)
    y = x[:, :2] @ weights[:2] + NOISE * torch.randn(ROWS, generator=generator)
    network = nn.Sequential(nn.Linear(units, 1, bias=False))
    network[0].weight.data[:] = weights
    gated = bp.gate(
        network.double(), x[:1].double(), prior=prior, inputs=True,
        likelihood=bp.Gaussian(rows=ROWS, scale=NOISE, learn_scale=False),
    )  # fmt: skip
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=units)))
    fits = masks * WEIGHT @ x.numpy().T
    joint = -0.5 * np.square(y.numpy() - fits).sum(1) / NOISE**2 + log_prior(prior, masks)
    return gated, (x.double(), y[:, None].double()), masks, joint


def exact(masks, joint):
    share = np.exp(joint - joint.max())
    return share / share.sum() @ masks, share.max() / share.sum()


@pytest.mark.parametrize("hyper", PRIORS, ids=str)
def test_it_is_what_all_masks_say(hyper):
    gated, rows, masks, joint = problem(bp.priors.BernoulliGates(hyper))
    found = corrected_inclusion(gated, rows)
    right, most = exact(masks, joint)
    assert found.complete
    assert np.abs(found.corrected["input"] - right).max() < 2e-3  # what is not looked around is negligible
    assert found.probability == pytest.approx(most, abs=1e-3)
    assert np.array_equal(found.best.numpy(), masks[joint.argmax()].astype(bool))
    assert np.allclose(found.guide["input"], 0.9, atol=1e-6)  # as gate() begins
    assert found.moved == pytest.approx(np.abs(right - 0.9).max(), abs=2e-3)


def test_a_guide_that_is_sure_of_one_of_two_twins_learns_of_the_other():
    """Its draws hold one mask alone, so that no weights of draws could tell."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 3, generator=generator)
    x[:, 1] = x[:, 0]
    y = x[:, :1] + torch.randn(ROWS, 1, generator=generator)
    network = nn.Sequential(nn.Linear(3, 1, bias=False))
    network[0].weight.data[:] = torch.tensor([1.0, 1.0, 0.0])
    gated = bp.gate(
        network, x[:1], prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.5)), inputs=True,
        likelihood=bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False),
    )  # fmt: skip
    gated.log_odds.data[:] = torch.tensor([30.0, -30.0, -30.0])
    found = corrected_inclusion(gated, (x, y))
    assert found.corrected["input"][:2] == pytest.approx([0.5, 0.5], abs=1e-3)  # both at once: e⁻³⁰
    assert found.corrected["input"][2] == pytest.approx(0.5, abs=1e-6)  # of no weight: its prior
    assert found.moved == pytest.approx(0.5, abs=1e-3)


def test_removed_units_stay_closed():
    gated, rows, masks, joint = problem(bp.priors.BernoulliGates(bp.priors.Fixed(0.3)))
    gone = torch.zeros(8, dtype=torch.bool)
    gone[[0, 5]] = True
    gated.remove_(gone)
    left = (masks[:, 0] == 0) & (masks[:, 5] == 0)
    found = corrected_inclusion(gated, rows)
    right, _ = exact(masks[left], joint[left])
    assert np.abs(found.corrected["input"] - right).max() < 2e-3
    assert found.corrected["input"][0] == 0.0 == found.guide["input"][0]


def test_too_few_masks_are_said_to_be_too_few():
    gated, rows, _, _ = problem(bp.priors.BernoulliGates(bp.priors.Fixed(0.3)))
    found = corrected_inclusion(gated, rows, masks=20)
    assert found.masks == 20
    assert not found.complete
    assert "NOT complete" in repr(found)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
def test_a_decided_fit_is_asked_as_it_was_before():
    gated, rows, masks, joint = problem(bp.priors.BernoulliGates(bp.priors.Fixed(0.3)))
    for parameter in gated.network.parameters():
        parameter.requires_grad_(False)
    recipe = bp.Recipe(gates=bp.GateSteps(every=1, learning_rate=0.3), shrink=bp.Shrink(below=1e-12))
    result = bp.fit(gated, rows, epochs=60, batch_size=ROWS, recipe=recipe, progress=False)
    found = corrected_inclusion(result, rows, at="decision")
    right, _ = exact(masks, joint)
    assert np.abs(found.corrected["input"] - right).max() < 2e-3
    decided = corrected_inclusion(result, rows)
    assert set(np.unique(np.round(decided.guide["input"], 9))) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g, r: corrected_inclusion([g, g], r), "of one fit"),
        (lambda g, r: corrected_inclusion(g, r, masks=0), "masks=0 must be"),
        (lambda g, r: corrected_inclusion(g, (r[0][:7], r[1][:7])), "60 training rows, and got 7"),
    ],
)
def test_what_cannot_be_asked_is_refused(change, said):
    gated, rows, _, _ = problem(bp.priors.BernoulliGates(bp.priors.Fixed(0.3)))
    with pytest.raises(PosteriorError, match=said):
        change(gated, rows)


def test_weights_with_a_posterior_have_no_probability_of_a_mask_alone():
    gated, rows, _, _ = problem(bp.priors.SpikeAndSlab())
    with pytest.raises(PosteriorError, match="weights have a posterior"):
        corrected_inclusion(gated, rows)
