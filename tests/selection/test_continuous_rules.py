"""Rules for continuous gates: their scores, their own masks, and networks that are the scaled ones."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import SelectionError
from bayesprune.priors.bmrs import normal_reduction, uniform_reduction
from bayesprune.selection import (
    InclusionProb,
    LogNormalReduction,
    SignalToNoise,
    Subject,
    path,
    prune,
    select,
)


def gated_of(prior):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3)
    ).double()
    x = torch.randn(30, 4, dtype=torch.double)
    gated = bp.gate(network, x[:2], prior=prior, likelihood=bp.Categorical(rows=30), inputs=False)
    for q in gated.continuous.live.values():
        for name, parameter in q.named_parameters():
            parameter.data.copy_(
                torch.linspace(
                    *{"raw_loc": (-9.0, 0.2), "loc": (0.5, 2.0)}.get(name, (2.0, -4.0)), len(parameter)
                )
            )
    gated.follow_continuous_()
    return gated, x


@pytest.fixture(params=["log-normal", "gaussian"])
def fitted(request):
    prior = priors.LogNormalGates() if request.param == "log-normal" else priors.GaussianGates()
    return gated_of(prior)


def test_signal_to_noise_keeps_what_the_prior_s_own_rule_keeps(fitted):
    gated, _ = fitted
    subject = Subject.of(gated)
    scores = SignalToNoise().scores(subject)
    for name, q in gated.continuous.live.items():
        torch.testing.assert_close(scores[name], q.log_odds().detach())
    masks = SignalToNoise().masks(subject)
    kept = bp.svi.result.pruned(gated).by_group(bp.svi.result.pruned(gated).alive)
    assert all(torch.equal(masks[name], kept[name]) for name in masks)
    assert 0 < sum(int(m.sum()) for m in masks.values()) < 21


@pytest.mark.parametrize("form", ["normal", "uniform"])
def test_reduction_scores_are_the_evidence(form):
    gated, _ = gated_of(priors.LogNormalGates())
    scores = LogNormalReduction(form, bits=4.0).scores(Subject.of(gated))
    for name, q in gated.continuous.live.items():
        loc, scale = q.loc.detach(), q.scale.detach()
        change = normal_reduction(loc, scale) if form == "normal" else uniform_reduction(loc, scale, 4.0)
        torch.testing.assert_close(scores[name], -change)
    masks = LogNormalReduction(form, bits=4.0).masks(Subject.of(gated))
    alone = {name: (score > 0) for name, score in scores.items()}
    assert all(bool((masks[n] >= alone[n]).all()) and int((masks[n] ^ alone[n]).sum()) <= 1 for n in masks)
    more = LogNormalReduction(form, bits=4.0, line=3.0).masks(Subject.of(gated))
    assert all(bool((more[name] <= masks[name]).all()) for name in masks)


@pytest.mark.parametrize(
    "rule", [SignalToNoise(), LogNormalReduction(), InclusionProb()], ids=lambda r: r.name
)
def test_what_a_rule_leaves_is_the_network_under_the_means_and_its_mask(rule):
    gated, x = gated_of(priors.LogNormalGates())
    gated.eval()
    before = {name: value.clone() for name, value in gated.state_dict().items()}
    for candidate in path(gated, None, rule, (0.8, 0.5, 0.3)):
        masks, means = candidate.masks, gated.continuous.means()
        gates = {name: means[name] * masks[name] for name in masks}
        torch.testing.assert_close(candidate.network(x), gated.outputs(x, gates), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(before[name], value) for name, value in gated.state_dict().items())


def test_groups_without_continuous_gates_stay_whole():
    table = {"0": priors.BernoulliGates(priors.Flattening(1.0)), "*": priors.LogNormalGates()}
    gated, x = gated_of(priors.PerGroup(table))
    small = prune(gated, select(LogNormalReduction("uniform"), Subject.of(gated)))
    assert small[0].weight.shape == (12, 4) and small(x).shape == (30, 3)


def test_posteriors_without_such_gates_are_refused():
    bernoulli, _ = gated_of(priors.BernoulliGates(priors.Flattening(1.0)))
    with pytest.raises(SelectionError, match=r"SignalToNoise reads guides.*on or off: gate with"):
        select(SignalToNoise(), Subject.of(bernoulli))
    gaussian, _ = gated_of(priors.GaussianGates())
    with pytest.raises(SelectionError, match=r"LogNormalReduction reads log-normal gates.*none"):
        select(LogNormalReduction(), Subject.of(gaussian))
    gaussian.settle_continuous_()
    with pytest.raises(SelectionError, match=r"are decided: give the model.*result.at_decision"):
        select(SignalToNoise(), Subject.of(gaussian))
    concrete, _ = gated_of(priors.HardConcreteGates(priors.Flattening(1.0)))
    with pytest.raises(SelectionError, match=r"HardConcrete, which says no variance"):
        select(SignalToNoise(), Subject.of(concrete))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"form": "point"}, "form='point' must be"),
        ({"bits": 40.0}, "bits=40.0 must lie between 0 and 23"),
        ({"line": float("nan")}, "line=nan must be a finite"),
    ],
)
def test_settings_out_of_range_are_named(settings, said):
    with pytest.raises(SelectionError, match=said):
        LogNormalReduction(**settings)
