"""Acceptance by Bayes factors: proposals of a small linear model against exact evidences of their masks."""

from itertools import combinations

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.baseline import Plan, accepted, dense
from bayesprune.errors import SelectionError, SettingsError
from bayesprune.selection import BayesAcceptance, Magnitude, Subject, select
from bayesprune.selection.acceptance import _log_factor
from bayesprune.selection.gains import Loss
from tests.selection.networks import EXAMPLES, example_of, posterior_of
from tests.selection.test_posterior_rules import design, log_evidence, regression_at_its_mode

SLAB = 0.5


def subsets(units):
    """Every mask but the empty one."""
    return [kept for size in range(1, units + 1) for kept in combinations(range(units), size)]


def as_mask(kept, units=5):
    mask = torch.zeros(units, dtype=torch.bool)
    mask[list(kept)] = True
    return {"input": mask}


def test_every_proposal_is_weighed_as_exact_evidences_weigh_it():
    """Orthogonal inputs: all pairs of nested masks, enumerated; y tells of two units, of one little."""
    x, y = design(0.0, units=5)
    y = y + 0.15 * x[:, 1:2]
    subject = Subject.of(regression_at_its_mode(x, y, SLAB))
    rule = BayesAcceptance(x, y)
    exact = {kept: log_evidence(x, y, SLAB, list(kept)) for kept in subsets(5)}
    pairs = [(a, b) for a in exact for b in exact if set(b) < set(a)]
    assert len(pairs) == 180  # 3⁵ − 2⁵ nested pairs, less 31 that end in nothing
    loss = Loss(subject, subject.posterior.likelihood, x, y)
    line, decided = rule._line(loss), {True: 0, False: 0}
    for number, (large, small) in enumerate(pairs):
        found = _log_factor(loss, line, as_mask(large), as_mask(small))
        assert found == pytest.approx(exact[small] - exact[large], abs=1e-6)
        decided[found >= 0] += 1
        if number % 60 == 0:
            assert rule.log_factor(subject, as_mask(large), as_mask(small)) == found
    assert min(decided.values()) > 20


@pytest.mark.parametrize("least", [1.0, 30.0])
@pytest.mark.parametrize("propose", ["random", "magnitude"])
def test_what_is_accepted_is_what_exact_evidence_accepts(propose, least):
    """The whole chain, proposal by proposal, decided by enumerated evidences in place of the rule's."""
    x, y = design(0.0, units=5)
    subject = Subject.of(regression_at_its_mode(x, y, SLAB))
    rule = BayesAcceptance(x, y, propose=propose, share=0.3, proposals=6, least_evidence=least)
    for seed in range(2):
        masks = as_mask(range(5))
        for number in range(6):
            proposed = rule.proposed(subject, masks, seed + number)
            kept = [m["input"].nonzero()[:, 0].tolist() for m in (masks, proposed)]
            old, new = (log_evidence(x, y, SLAB, one) for one in kept)
            if new - old >= torch.tensor(least).log():
                masks = proposed
        assert torch.equal(select(rule, subject, seed=seed)["input"], masks["input"])


def test_without_occams_factor_it_is_the_ratio_of_posterior_densities():
    x, y = design(0.6)
    gated = regression_at_its_mode(x, y, SLAB)
    weight = gated.weight_tensors()["0.weight"].detach()[0]

    def log_density(kept):
        w = torch.where(as_mask(kept, 4)["input"], weight, 0.0)
        return float(-0.5 * (y[:, 0] - x @ w).square().sum() - 0.5 * (w / SLAB).square().sum())

    rule = BayesAcceptance(x, y, occam=False)
    for kept in subsets(4):
        found = rule.log_factor(Subject.of(gated), as_mask(range(4), 4), as_mask(kept, 4))
        assert found == pytest.approx(log_density(kept) - log_density(range(4)), abs=1e-6)


def test_where_weights_are_correlated_it_is_never_below_the_exact_one():
    """With the other weights held, that is log|I + s²H_RR|/2 in place of what weights cost one by one."""
    x, y = design(0.6)
    gated = regression_at_its_mode(x, y, SLAB)
    weight = gated.weight_tensors()["0.weight"].detach()[0]
    rule, subject, gaps = BayesAcceptance(x, y), Subject.of(gated), []
    for kept in subsets(4)[:-1]:
        gone = [u for u in range(4) if u not in kept]
        rest = y[:, 0] - x[:, list(kept)] @ weight[list(kept)]  # what is left for the weights that would go
        covariance = torch.eye(len(x)).double() + SLAB**2 * x[:, gone] @ x[:, gone].T
        zero = torch.zeros(len(x)).double()
        with_them = torch.distributions.MultivariateNormal(zero, covariance).log_prob(rest)
        without = torch.distributions.Normal(0.0, 1.0).log_prob(rest).sum()
        found = rule.log_factor(subject, as_mask(range(4), 4), as_mask(kept, 4))
        gaps.append(found - float(without - with_them))
        assert gaps[-1] > -1e-6
        assert len(gone) > 1 or gaps[-1] < 1e-6
    assert max(gaps) > 0.1


@pytest.mark.parametrize("propose", ["random", "magnitude"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_any_network_is_asked(name, propose):
    """Where any evidence will do, every proposal is accepted; where none will, none."""
    example = example_of(name)
    trained = Subject.of(example.network, example.x), 0.5
    fitted = Subject.of(posterior_of(example), example.x), None
    for subject, scale in (trained, fitted):
        likelihood = bp.Categorical(rows=len(example.x))
        asked = {"propose": propose, "share": 0.2, "weight_scale": scale, "likelihood": likelihood}
        rule = BayesAcceptance(example.x, example.y, least_evidence=1e-300, proposals=2, **asked)
        masks = subject.closed(subject.alive)
        for seed in (4, 5):
            masks = rule.proposed(subject, masks, seed)
        found = select(rule, subject, seed=4)
        assert all(torch.equal(found[group], masks[group]) for group in masks)
        assert subject.parameters(found) < subject.parameters(subject.alive)
        none = BayesAcceptance(example.x, example.y, least_evidence=1e300, **asked)
        assert all(bool(mask.all()) for mask in select(none, subject).values())


def test_a_proposal_by_magnitude_takes_the_smallest_of_every_group():
    example = example_of("mlp")
    subject = Subject.of(example.network, example.x)
    rule = BayesAcceptance(example.x, example.y, share=0.3, likelihood=example.likelihood)
    found = rule.proposed(subject, subject.alive)
    for group, scores in Magnitude().scores(subject).items():
        assert torch.equal(found[group], scores > scores.sort().values[-(-3 * len(scores) // 10) - 1])


def accepted_units(network):
    """How many inputs and hidden units a pruned network of one hidden layer has."""
    first, last = (m for m in network.modules() if isinstance(m, nn.Linear))
    assert first.out_features == last.in_features
    return {"inputs": first.in_features, "hidden": last.in_features}


def test_units_that_tell_nothing_are_let_go_while_a_network_learns():
    """Inputs two to five are noise; both that tell are kept, and nothing is where no evidence is enough."""
    torch.manual_seed(0)
    x = torch.randn(400, 6)
    y = (x[:, 0] + x[:, 1] > 0).long()
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=2.0))
    gated = bp.gate(
        network,
        x[:2],
        prior=prior,
        likelihood=bp.Categorical(rows=400),
        weights=bp.priors.NormalWeights(scale=1.0),
    )
    before = {name: p.clone() for name, p in gated.network.named_parameters()}
    plan = Plan((x, y), epochs=20, batch_size=40, seed=5, recipe=bp.Recipe(learning_rate=0.01))
    rival = accepted(gated, plan, BayesAcceptance(x, y), inputs=True)
    kept = accepted_units(rival.network)
    assert kept["inputs"] == 2 and kept["hidden"] < 8
    assert float((rival.network(x).argmax(1) == y).float().mean()) > 0.9
    refused = accepted(gated, plan, BayesAcceptance(x, y, least_evidence=1e300), proposals=3)
    assert refused.parameters == dense(gated, plan).parameters
    assert all(torch.equal(before[name], p) for name, p in gated.network.named_parameters())


WRONG = {
    "propose": ({"propose": "smallest"}, "propose='smallest'"),
    "share": ({"share": 1.0}, r"share=1\.0"),
    "proposals": ({"proposals": 0}, "proposals=0"),
    "evidence": ({"least_evidence": 0.0}, r"least_evidence=0\.0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_are_none_are_refused(name):
    settings, message = WRONG[name]
    with pytest.raises(SelectionError, match=rf"BayesAcceptance\({message}\)"):
        BayesAcceptance(torch.zeros(3, 2), torch.zeros(3), **settings)


def test_what_it_cannot_do_is_said():
    example = example_of("mlp")
    subject = Subject.of(example.network, example.x)
    rule = BayesAcceptance(example.x, example.y, weight_scale=0.5, likelihood=example.likelihood)
    with pytest.raises(SelectionError, match=r"leave share= and parameters= away.*BayesFactor"):
        select(rule, subject, share=0.5)
    with pytest.raises(SelectionError, match="BayesAcceptance weighs a unit's weights by their prior"):
        select(BayesAcceptance(example.x, example.y, likelihood=example.likelihood), subject)
    fewer = {**subject.alive, "fc1": torch.arange(14) < 5}
    with pytest.raises(SelectionError, match=r"this one has more of \['fc1'\]"):
        rule.log_factor(subject, fewer, subject.alive)
    gated = posterior_of(example)
    plan = Plan((example.x, example.y), epochs=1)
    with pytest.raises(SettingsError, match=r"a bp\.selection\.BayesAcceptance"):
        accepted(gated, plan, Magnitude())
    with pytest.raises(SettingsError, match=r"accepted\(proposals=0\)"):
        accepted(gated, plan, rule, proposals=0)
