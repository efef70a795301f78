"""Posterior rules against enumeration and closed forms."""

import warnings
from itertools import product

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import CorrelationWarning, SelectionError, TiesWarning
from bayesprune.selection import (
    BayesFactor,
    FlatteningVertex,
    InclusionProb,
    ModelReduction,
    Subject,
    select,
)
from bayesprune.selection.gains import Loss, gains
from bayesprune.selection.occam import occam
from bayesprune.selection.vertex import prior_prices
from tests.selection.networks import example_of, posterior_of

ROWS = 60


def small() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A regression of ten gates that some of them matter to."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 1)).double()
    x = torch.randn(ROWS, 3).double()
    return network, x, network(x).detach() + 0.3 * torch.randn(ROWS, 1).double()


def test_the_median_probability_masks_are_those_above_one_half():
    example = example_of("mlp")
    gated = posterior_of(example)
    gated.log_odds.data[: gated.groups[0].size] = -3.0  # a whole group below
    gated.log_odds.data[4] = -1.0
    masks = InclusionProb().masks(Subject.of(gated))
    for group, probs in gated.by_group(gated.inclusion_prob()).items():
        if group == "input":
            assert masks[group].nonzero().squeeze(1).tolist() == [4]  # the most probable stays
        else:
            assert torch.equal(masks[group], probs > 0.5)


def test_a_path_through_equally_probable_units_warns():
    gated = posterior_of(example_of("mlp"))
    gated.log_odds.data = torch.where(gated.log_odds > 0, 8.0, gated.log_odds)
    subject, kept = Subject.of(gated), int((gated.log_odds > 0).sum())
    masks = select(InclusionProb(), subject)
    select(InclusionProb(), subject, parameters=subject.parameters(masks))  # not between equals
    with pytest.warns(TiesWarning, match=f"{kept} units are equally probable.*FlatteningVertex"):
        select(InclusionProb(), subject, parameters=subject.parameters(masks) // 2)


@torch.no_grad()
def test_gains_are_differences_of_the_loss():
    network, x, y = small()
    subject, likelihood = Subject.of(network, x), bp.Gaussian(rows=500, scale=0.3)
    found = gains(Loss(subject, likelihood, x, y), {"0": torch.ones(7, dtype=torch.bool)})["0"]
    hidden = network[1](network[0](x))
    for unit in range(7):
        gate = torch.ones(7, dtype=torch.double)
        gate[unit] = 0
        nll = [likelihood.nll(network[2](hidden * z), y).mean() for z in (gate, torch.ones(7))]
        assert float(found[unit]) == pytest.approx(500 * float(nll[0] - nll[1]), rel=1e-9)


def objective(loss, price: float, mask: torch.Tensor) -> float:
    return loss({"0": mask}) + price * float(mask.sum())


@pytest.mark.parametrize("price", [0.0, 2.0, 20.0, 200.0, 5000.0])
def test_the_vertex_is_a_minimum_among_single_flips_and_near_the_best_of_all(price):
    network, x, y = small()
    subject, likelihood = Subject.of(network, x), bp.Gaussian(rows=500, scale=0.3)
    rule = FlatteningVertex(x, y, price=price, likelihood=likelihood)
    mask, loss = rule.masks(subject)["0"], Loss(subject, likelihood, x, y)
    here = objective(loss, price, mask)
    for unit in range(7):
        flipped = mask.clone()
        flipped[unit] = ~flipped[unit]
        if bool(flipped.any()):
            assert objective(loss, price, flipped) >= here - 1e-9
    assert here <= objective(loss, price, torch.ones(7, dtype=torch.bool)) + 1e-9
    every = [torch.tensor(bits, dtype=torch.bool) for bits in product([0, 1], repeat=7) if any(bits)]
    better = sum(objective(loss, price, m) < here - 1e-9 for m in every)
    assert better <= len(every) // 10


def test_prices_are_those_of_the_flattening_prior():
    gated = posterior_of(example_of("mlp"), price=7.5)
    for group in gated.groups:
        assert torch.allclose(
            prior_prices(Subject.of(gated))[group.name], torch.full((group.size,), 7.5).double()
        )


def test_prices_of_a_known_rate_are_its_log_odds():
    network, x, _ = small()
    prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.2))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Gaussian(rows=500, scale=0.3))
    expected = torch.full((7,), torch.log(torch.tensor(4.0)).item()).double()
    assert torch.allclose(prior_prices(Subject.of(gated))["0"], expected, atol=1e-6)


def test_a_program_of_the_users_own_costs_what_the_same_prior_in_closed_form_costs():
    network, x, y = small()
    likelihood = bp.Gaussian(rows=500, scale=0.3)

    def own(group):
        return bp.priors.Gates(logits=torch.full((group.size,), 0.2).double().logit())

    known = bp.priors.BernoulliGates(bp.priors.Fixed(0.2))
    mine, theirs = (Subject.of(bp.gate(network, x[:1], prior=p, likelihood=likelihood)) for p in (own, known))
    assert torch.allclose(prior_prices(mine)["0"], prior_prices(theirs)["0"], atol=1e-6)
    masks = [select(FlatteningVertex(x, y), subject)["0"] for subject in (mine, theirs)]
    assert torch.equal(*masks)


def test_removed_units_have_no_price():
    gated = posterior_of(example_of("mlp"), price=7.5)
    gated.remove_(torch.arange(len(gated.alive)) == 1)
    prices = torch.cat(list(prior_prices(Subject.of(gated)).values()))
    assert prices[1] == 0 and (prices[gated.alive] == 7.5).all()


def design(correlation, rows=200, units=4):
    """(rows, units), every pair correlated as asked, and targets that the first unit tells of."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.linalg.qr(torch.randn(rows, units, generator=generator).double())[0] * rows**0.5
    covariance = (1 - correlation) * torch.eye(units).double() + correlation
    x = raw @ torch.linalg.cholesky(covariance).T
    y = 0.35 * x[:, :1] + torch.randn(rows, 1, generator=generator).double()
    return x, y


def regression_at_its_mode(x, y, slab, posterior="delta"):
    network = nn.Sequential(nn.Linear(x.shape[1], 1, bias=False)).double()
    gated = bp.gate(
        network,
        x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.5)),
        likelihood=bp.Gaussian(rows=len(x), scale=1.0, learn_scale=False).double(),
        weights=bp.priors.NormalWeights(scale=slab, posterior=posterior),
    )
    precision = x.T @ x + torch.eye(x.shape[1]).double() / slab**2
    gated.weight_tensors()["0.weight"].data = torch.linalg.solve(precision, x.T @ y).T
    if posterior == "normal":
        gated.log_scales["0/weight"].data = (-0.5 * precision.diagonal().log())[None]
    gated.log_odds.data.fill_(5.0)
    return gated


def log_evidence(x, y, slab, kept):
    covariance = torch.eye(len(x)).double() + slab**2 * x[:, kept] @ x[:, kept].T
    zero = torch.zeros(len(x)).double()
    return float(torch.distributions.MultivariateNormal(zero, covariance).log_prob(y[:, 0]))


def test_bayes_factors_are_ratios_of_evidences_of_an_orthogonal_linear_model():
    """Without Occam's factor every score at a mode is above zero, and every unit stays."""
    (x, y), slab = design(0.0), 0.5
    subject = Subject.of(regression_at_its_mode(x, y, slab))
    scores = BayesFactor(x, y).scores(subject)["input"]
    for unit in range(4):
        without = [u for u in range(4) if u != unit]
        exact = log_evidence(x, y, slab, list(range(4))) - log_evidence(x, y, slab, without)
        assert float(scores[unit]) == pytest.approx(exact, abs=1e-6)
    assert scores[0] > 3 and (scores[1:] < 0).all()
    assert BayesFactor(x, y).masks(subject)["input"].tolist() == [True, False, False, False]
    stricter = BayesFactor(x, y, least_evidence=1e3)
    assert torch.allclose(stricter.scores(subject)["input"], scores + torch.log(torch.tensor(1e3).double()))


def test_bayes_factors_are_evidences_with_the_other_weights_held():
    """Correlated inputs: the integral over one weight alone, by quadrature."""
    (x, y), slab = design(0.6), 0.5
    gated = regression_at_its_mode(x, y, slab)
    weight = gated.weight_tensors()["0.weight"].detach()[0]
    scores = BayesFactor(x, y).scores(Subject.of(gated))["input"]
    grid = torch.linspace(-4, 4, 8001, dtype=torch.double)
    prior = torch.distributions.Normal(torch.zeros(()).double(), slab).log_prob(grid) + torch.log(
        grid[1] - grid[0]
    )
    for unit in range(4):
        rest = y[:, 0] - x @ weight + x[:, unit] * weight[unit]
        nats = -0.5 * (rest[:, None] - x[:, [unit]] * grid).square().sum(0)
        exact = torch.logsumexp(prior + nats, 0) + 0.5 * rest.square().sum()
        assert float(scores[unit]) == pytest.approx(float(exact), abs=1e-5)


def test_curvature_of_classes_is_that_of_the_softmax():
    """A linear classifier: h of a weight is Σ x² p (1 − p); Occam's factor sums over classes."""
    torch.manual_seed(0)
    x, network = torch.randn(50, 3).double(), nn.Sequential(nn.Linear(3, 4)).double()
    y = torch.randint(4, (50,))
    prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.5))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=500))
    found = occam(Loss(Subject.of(gated), gated.likelihood, x, y), lambda _: 0.7)["input"]
    probs = network(x).softmax(-1).detach()
    curvature = 10 * x.square().T @ (probs * (1 - probs))  # (3, 4), for 500 rows
    assert torch.allclose(found, 0.5 * torch.log1p(0.49 * curvature).sum(1), rtol=1e-9)


@pytest.mark.parametrize("correlation, warns", [(0.0, False), (0.4, False), (0.95, True)])
def test_model_reduction_warns_where_units_are_correlated(correlation, warns):
    (x, y), slab = design(correlation), 0.5
    subject = Subject.of(regression_at_its_mode(x, y, slab, "normal"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ModelReduction(rows=x).scores(subject)
    told = [w for w in caught if issubclass(w.category, CorrelationWarning)]
    assert len(told) == warns
    if warns:
        assert "'input' (units" in str(told[0].message) and "0.95" in str(told[0].message)


def test_model_reduction_is_the_exact_bayes_factor_of_an_orthogonal_linear_model():
    """y = Σ x_u w_u + noise, orthogonal x: the posterior is a product, and both evidences are closed "
    "forms."""
    torch.manual_seed(0)
    rows, units, noise, slab = 32, 6, 0.5, 0.8
    x = torch.linalg.qr(torch.randn(rows, units).double())[0] * rows**0.5
    true = torch.tensor([1.0, 0.0, -0.4, 0.05, 0.0, 0.2]).double()
    y = x @ true + noise * torch.randn(rows).double()
    network = nn.Sequential(nn.Linear(units, 1, bias=False)).double()
    gated = bp.gate(
        network,
        x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.5)),
        likelihood=bp.Gaussian(rows=rows, scale=noise),
        weights=bp.priors.NormalWeights(scale=slab, posterior="normal"),
    )
    precision = (x**2).sum(0) / noise**2 + 1 / slab**2
    weight = gated.weight_tensors()["0.weight"]
    weight.data = ((x.T @ y) / noise**2 / precision)[None]
    gated.log_scales["0/weight"].data = (-0.5 * precision.log())[None]
    subject = Subject.of(gated)
    scores = ModelReduction().scores(subject)["input"]

    def log_evidence(kept: torch.Tensor) -> torch.Tensor:
        covariance = noise**2 * torch.eye(rows).double() + slab**2 * x[:, kept] @ x[:, kept].T
        return torch.distributions.MultivariateNormal(torch.zeros(rows).double(), covariance).log_prob(y)

    everything = torch.ones(units, dtype=torch.bool)
    for unit in range(units):
        without = everything.clone()
        without[unit] = False
        exact = log_evidence(everything) - log_evidence(without)
        assert float(scores[unit]) == pytest.approx(float(exact), abs=1e-8)
    assert torch.equal(ModelReduction().masks(subject)["input"], scores > 0)


def test_model_reduction_needs_a_gaussian_posterior():
    with pytest.raises(SelectionError, match='posterior="normal"'):
        select(ModelReduction(), Subject.of(posterior_of(example_of("mlp"))))
