"""Masks with the weights integrated out, against conjugate evidence, quadrature, and a cut network."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import expit, gammaln, log_expit, log_softmax, logsumexp
from scipy.stats import multivariate_normal, multivariate_t, norm
from torch import nn

import bayesprune as bp
from bayesprune.errors import PosteriorError
from bayesprune.posterior import integrate_weights
from bayesprune.svi.mask_evidence import MOST_WEIGHTS, tensors_of

SCALE = 0.5


def linear(inputs, rows, price, likelihood, weights=None):
    network = nn.Sequential(nn.Linear(inputs, 1, bias=False))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price))
    x = torch.zeros(1, inputs)
    gated = bp.gate(network, x, prior=prior, likelihood=likelihood, weights=bp.priors.NormalWeights(SCALE))
    if weights is not None:
        gated.weight_tensors()["0.weight"].data[:] = torch.as_tensor(weights).float()
    return gated


def twins(seed, rows=200, correlation=0.998):
    """Six inputs: the first two are all but one, and either of them will do; the third counts as well."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, generator=generator)
    x[:, 1] = correlation * x[:, 0] + (1 - correlation**2) ** 0.5 * x[:, 1]
    y = x[:, 0] + 0.7 * x[:, 2] + torch.randn(rows, generator=generator)
    return x, y[:, None]


def conjugate(x, y, price):
    """(masks, inputs) and (masks,): every mask, and log p(z, y) by the conjugate evidence."""
    x, y = x.double().numpy(), y.double().numpy()[:, 0]
    masks = np.array(list(product([0, 1], repeat=x.shape[1])))
    covariance = [np.eye(len(x)) + SCALE**2 * (x * z) @ x.T for z in masks]
    evidence = [multivariate_normal.logpdf(y, np.zeros(len(y)), c) for c in covariance]
    return masks, np.array(evidence) - price * masks.sum(1)


def twin_model(price=5.0, weights=None):
    return linear(6, 200, price, bp.Gaussian(rows=200, scale=1.0, learn_scale=False), weights)


@pytest.mark.parametrize("seed", [0, 1])
def test_masks_of_a_linear_gaussian_model_are_exact(seed):
    """One of the twins, and hardly ever both; wherever the search for the mode begins."""
    x, y = twins(seed)
    masks, scores = conjugate(x, y, price=5.0)
    found = integrate_weights(twin_model(weights=torch.randn(1, 6)), (x, y))
    order = [int((masks == z).all(1).nonzero()[0][0]) for z in found.masks]
    assert np.ptp(found.log_joint - scores[order]) < 1e-6 and found.converged.all()
    exact = np.exp(scores - logsumexp(scores)) @ masks
    assert found.inclusion_prob() == pytest.approx(exact, abs=1e-6)
    assert exact[:2].sum() == pytest.approx(1.0, abs=0.01) and exact[:2].min() > 0.3
    design, targets = x.double().numpy(), y.double().numpy()
    ridge = np.linalg.solve(design.T @ design + np.eye(6) / SCALE**2, design.T @ targets)
    assert found.modes[found.masks.all(1)][0] == pytest.approx(ridge[:, 0], abs=1e-4)


def fitted_twins(weights, kept, odds=12.0):
    gated = twin_model(weights=weights)
    gated.log_odds.data = torch.where(torch.tensor(kept), odds, -odds)
    gated.remove_(~torch.tensor(kept))
    return gated


def test_a_mask_that_keeps_both_twins_is_told_no_and_one_of_them_yes():
    """Weights are those of the ridge regression under each mask, as a fit with ample time has them."""
    x, y = twins(1)  # exact inclusion .63, .38, 1, .001, .001, .001
    verdicts = {}
    for kept in ([True, True, True], [True, False, True]):
        mask = torch.tensor([*kept, False, False, False])
        part = x[:, mask].double()
        ridge = torch.linalg.solve(part.T @ part + torch.eye(part.shape[1]) / SCALE**2, part.T @ y.double())
        weights = torch.zeros(1, 6)
        weights[0, mask] = ridge[:, 0].float()
        answers = bp.diagnose([fitted_twins(weights, mask.tolist())] * 4, rows=(x, y), draws=50)
        verdicts[sum(kept)] = answers
    both, one = verdicts[3], verdicts[2]
    assert both.calibrated.verdict == "no" and both.faithful.verdict == "no", both
    assert both.calibrated["largest |q − exact| of a gate, weights integrated out"] > 0.4
    assert both.calibrated["largest |q − exact| of a gate, given these weights"] < 0.05  # blind to it
    assert both.faithful["overconfidence given these weights"] < 0.1
    assert both.faithful["overconfidence weights integrated out"] > 0.9
    assert "share work" in both.calibrated.why and "share work" in both.faithful.why
    assert one.calibrated.verdict == "yes" and one.faithful.verdict == "yes", one
    text = f"{one.calibrated.why} {one.faithful.why}"
    assert "given these weights and weights integrated out, given these removals" in text
    assert "the exact posterior" not in text


@pytest.mark.parametrize("family", ["bernoulli", "poisson"])
def test_masks_of_other_likelihoods_are_near_quadrature(family):
    """Two weights, 40 rows: log-evidences are within 0.05 of those of a grid of 401²."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 2, generator=generator)
    slope = x @ torch.tensor([[0.8], [-0.4]])
    if family == "bernoulli":
        y, likelihood = torch.bernoulli(slope.sigmoid(), generator=generator), bp.Bernoulli(rows=40)
    else:
        y, likelihood = torch.poisson(slope.exp(), generator=generator), bp.Poisson(rows=40)
    gated = linear(2, 40, 1.0, likelihood)
    found = integrate_weights(gated, (x, y))
    grid = np.linspace(-4, 4, 401)
    w = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)  # (161 k, 2)
    log_prior = norm.logpdf(w, scale=SCALE).sum(1) + 2 * np.log(grid[1] - grid[0])
    exact = []
    for mask in found.masks:
        outputs = w @ (x.numpy() * mask).T
        if family == "bernoulli":
            rows = np.log(expit(np.where(y[:, 0].numpy() > 0, outputs, -outputs)))
        else:
            rows = y[:, 0].numpy() * outputs - np.exp(outputs)
        exact.append(logsumexp(log_prior + rows.sum(1)) - mask.sum())
    difference = found.log_joint - np.array(exact)
    assert np.ptp(difference) < 0.05 and found.converged.all()


FAMILIES = {  # likelihood, targets drawn from outputs, log p(y | outputs) summed over rows
    "gaussian": (
        lambda: bp.Gaussian(rows=60, scale=1.0, learn_scale=False),
        lambda o, g: torch.normal(o, 1.0, generator=g),
        lambda o, y: norm.logpdf(y - o).sum((1, 2)),
    ),
    "bernoulli": (
        lambda: bp.Bernoulli(rows=60),
        lambda o, g: torch.bernoulli(o.sigmoid(), generator=g),
        lambda o, y: log_expit((2 * y - 1) * o).sum((1, 2)),
    ),
    "poisson": (
        lambda: bp.Poisson(rows=60),
        lambda o, g: torch.poisson((o / 2).exp(), generator=g),
        lambda o, y: (y * o - np.exp(o) - gammaln(y + 1)).sum((1, 2)),
    ),
    "categorical": (
        lambda: bp.Categorical(rows=60),
        lambda o, g: torch.multinomial(o.softmax(1), 1, generator=g)[:, 0],
        lambda o, y: np.take_along_axis(log_softmax(o, 2), y[None, :, None], 2).sum((1, 2)),
    ),
}


def generalised(family, correlation):
    """Four correlated inputs behind a linear model of a family, three outputs of classes; weights N(0, 1)."""
    generator = torch.Generator().manual_seed(5)
    factor = torch.linalg.cholesky((1 - correlation) * torch.eye(4) + correlation)
    x = torch.randn(60, 4, generator=generator) @ factor.T
    outputs = 3 if family == "categorical" else 1
    slopes = torch.tensor([[0.9], [-0.6], [0.35], [0.0]]) * torch.linspace(1, -1, outputs)
    likelihood, draw, _ = FAMILIES[family]
    network = nn.Sequential(nn.Linear(4, outputs, bias=False))
    prior, weights = bp.priors.BernoulliGates(bp.priors.Fixed(0.3)), bp.priors.NormalWeights(1.0)
    gated = bp.gate(network, x[:1], prior=prior, likelihood=likelihood(), weights=weights)
    return gated, (x, draw(x @ slopes, generator))


def by_importance(family, rows, found, draws):
    """(masks,), log p(z, y): weights drawn around each mode, from Student's t of twice its covariance."""
    (x, y), log_likelihood = (t.double().numpy() if t.is_floating_point() else t.numpy() for t in rows), []
    rng = np.random.default_rng(0)
    for mask, mode in zip(found.masks.astype(bool), found.modes, strict=True):
        open_inputs, modes = x[:, mask], mode.reshape(-1, 4)[:, mask]
        size, ours, slopes = modes.size, FAMILIES[family][2], modes.ravel()

        def log_joint(w, open_inputs=open_inputs, shape=modes.shape, ours=ours):
            """(draws,), of (draws, weights)."""
            outputs = np.einsum("ni,doi->dno", open_inputs, w.reshape(len(w), *shape))
            return ours(outputs, y) + norm.logpdf(w).sum(1)

        prior = mask.sum() * np.log(0.3) + (~mask).sum() * np.log(0.7)
        if not size:
            log_likelihood.append(log_joint(np.zeros((1, 0)))[0] + prior)
            continue
        step = 1e-3 * np.eye(size)
        corners = [slopes + a + b for a in step for b in step], [slopes + a - b for a in step for b in step]
        up, down = (log_joint(np.array(c)) for c in corners)
        back = log_joint(np.array([slopes - a - b for a in step for b in step]))
        other = log_joint(np.array([slopes - a + b for a in step for b in step]))
        hessian = -(up - down - other + back).reshape(size, size) / 4e-6
        proposal = multivariate_t(slopes, 2 * np.linalg.inv(hessian), df=5, seed=rng)
        w = np.atleast_2d(proposal.rvs(draws)).reshape(draws, size)
        log_likelihood.append(logsumexp(log_joint(w) - proposal.logpdf(w)) - np.log(draws) + prior)
    return np.array(log_likelihood)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_inclusion_probabilities_are_right_whatever_the_likelihood(family, correlation):
    """Mean |q − exact| against importance sampling of every mask's evidence, which errs by less than .005."""
    gated, rows = generalised(family, correlation)
    found = integrate_weights(gated, rows)
    scores = by_importance(family, rows, found, draws=20_000)
    exact = np.exp(scores - logsumexp(scores)) @ found.masks
    assert ((exact > 0.04) & (exact < 0.96)).any(), exact  # no trivial one
    worst = 0.005 if family == "gaussian" else 0.02
    assert abs(found.inclusion_prob() - exact).mean() < worst, (found.inclusion_prob(), exact)


def small_network():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    x = torch.randn(30, 2)
    y = (x[:, 0] > 0).long()
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(1.0))
    return bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=30)), (x, y)


def test_closed_units_cost_what_a_network_without_them_costs():
    gated, rows = small_network()
    masks = torch.tensor([[1, 1, 1, 0, 1], [1, 0, 1, 0, 1]])
    whole = integrate_weights(gated, rows, masks)
    cut = twin_of(gated)
    cut.remove_(~masks[0].bool())
    smaller = integrate_weights(cut, rows, masks)
    assert smaller.log_joint == pytest.approx(whole.log_joint, abs=1e-3)
    assert len(smaller.modes[0]) < len(whole.modes[0])
    nothing = integrate_weights(gated, rows, torch.zeros(1, 5))  # only biases act
    assert np.isfinite(nothing.log_joint).all()


def twin_of(gated):
    from bayesprune.structure.copying import copy_of

    return copy_of(gated)


def test_frozen_weights_are_known_and_large_networks_are_asked_about_their_last_layer():
    gated, rows = small_network()
    before = [p.clone() for p in gated.parameters()]
    assert len(tensors_of(gated)) == 4
    gated.network.requires_grad_(False)
    with pytest.raises(PosteriorError, match="frozen"):
        integrate_weights(gated, rows)
    alone = integrate_weights(gated, rows, torch.ones(1, 5), weights=["2.weight", "2.bias"])
    assert alone.weights == ("2.weight", "2.bias") and alone.modes.shape == (1, 8)
    assert all(torch.equal(a, b) for a, b in zip(before, gated.parameters(), strict=True))
    network = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(1.0))
    wide = bp.gate(network, torch.zeros(1, 20), prior=prior, likelihood=bp.Categorical(rows=30))
    assert sum(p.numel() for p in network.parameters()) > MOST_WEIGHTS
    assert tensors_of(wide) == ("2.weight", "2.bias")


def test_what_cannot_be_asked_is_refused():
    gated, rows = small_network()
    with pytest.raises(PosteriorError, match=r"no weights first, second: there are 0\.weight"):
        integrate_weights(gated, rows, weights=["first", "second"])
    with pytest.raises(PosteriorError, match=r"masks of shape \(1, 4\) must be \(masks, 5\)"):
        integrate_weights(gated, rows, torch.ones(1, 4))
    with pytest.raises(PosteriorError, match="zeros and ones"):
        integrate_weights(gated, rows, torch.full((1, 5), 0.5))
    gated.remove_(torch.arange(5) == 3)
    with pytest.raises(PosteriorError, match="which were removed"):
        integrate_weights(gated, rows, torch.ones(1, 5))
