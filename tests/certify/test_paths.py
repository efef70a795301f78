"""Paths: which weights and units go, nested, and made again from what a certificate says."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.certify.hashes import hash_of_network
from bayesprune.certify.paths import Given, Networks, Units, Weights, numbers_left, path_from, rebuild
from bayesprune.errors import CertificateError
from bayesprune.selection import InclusionProb, MagnitudeEdges, Subject


def small():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.BatchNorm1d(20), nn.Linear(20, 3)).eval()


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_weights_go_and_nothing_else(scope):
    network, shares = small(), [0.0, 0.25, 0.5, 0.9]
    found = [c.build() for c in Weights(scope, shares).candidates(network, X)]
    for share, pruned in zip(shares, found, strict=True):
        sizes = {"0.weight": 120, "3.weight": 60}
        tensors = dict(network.named_parameters())
        lost = {name: tensors[name][pruned.get_parameter(name) == 0].abs() for name in sizes}
        kept = {name: tensors[name][pruned.get_parameter(name) != 0].abs() for name in sizes}
        if scope == "layer":
            assert {n: len(v) for n, v in lost.items()} == {n: round(share * s) for n, s in sizes.items()}
            assert all(not len(lost[n]) or lost[n].max() <= kept[n].min() for n in sizes)
        else:
            gone, stays = torch.cat([*lost.values()]), torch.cat([*kept.values()])
            assert len(gone) == round(share * 180) and (not len(gone) or gone.max() <= stays.min())
        for name in ("0.bias", "2.weight", "2.bias", "3.bias"):
            assert torch.equal(pruned.get_parameter(name), tensors[name])
        assert numbers_left(pruned) == numbers_left(network) - sum(map(len, lost.values()))
    assert torch.equal(found[0](X), network(X))


def test_candidates_are_nested_though_weights_tie():
    network = nn.Linear(10, 4)
    nn.init.constant_(network.weight, 0.5)
    masks = [c.build().weight != 0 for c in Weights(shares=[0.1, 0.3, 0.8]).candidates(network, X)]
    assert [int(mask.sum()) for mask in masks] == [36, 28, 8]
    assert all(bool((after <= before).all()) for before, after in pairwise(masks))


def test_the_default_shares_rise_to_99_percent():
    shares = Weights().shares
    assert len(shares) == 50 and shares[0] == 0.0 and shares[-1] == 0.99


def test_units_are_removed_physically_and_outputs_are_those_of_the_mask():
    network = small()
    found = Units().candidates(network, X)
    assert found[0].build() is network and found[-1].build()[0].out_features == 1
    widths = [c.build()[0].out_features for c in found]
    assert widths == sorted(set(widths), reverse=True)
    order = network[0].weight.norm(dim=1).argsort(descending=True)
    for candidate in found[1::4]:
        pruned = candidate.build()
        masked, keep = small(), torch.zeros(20)
        keep[order[: pruned[0].out_features]] = 1
        masked[3].weight.data *= keep
        assert torch.allclose(pruned(X), masked(X), atol=1e-5)


def test_a_posterior_orders_the_units():
    prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.5))
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    gated = bp.gate(network, X, prior=prior, likelihood=bp.Categorical(rows=5), exclude=("input",))
    gated.log_odds.data = torch.tensor([3.0, -1.0, 2.0, 5.0, 0.0, 1.0, 4.0, -2.0])
    path = Units(InclusionProb(), fit=gated, shares=[1.0, 0.5, 0.2])
    found = path.candidates(network, X)
    assert "posterior" in path.name and all(not c.recipe for c in found[1:])
    rows = [c.build()[0].weight for c in found[1:]]
    best = gated.log_odds.argsort(descending=True)
    for weight in rows:
        keep = best[: len(weight)].sort().values
        assert 0 < len(weight) < 8 and torch.equal(weight, network[0].weight[keep])


def test_scores_from_elsewhere_order_the_units():
    network = small()
    rule = Given({"0": torch.arange(20.0), "no such group": torch.zeros(3)}, "position")
    last = Units(rule, shares=[0.3]).candidates(network, X)[-1].build()
    assert torch.equal(last[0].weight, network[0].weight[-len(last[0].weight) :])
    assert rule.name == "position" and set(rule.scores(Subject.of(network, X))) == {"0"}


@pytest.mark.parametrize("path", [Weights("layer", [0.0, 0.5]), Units(shares=[1.0, 0.6, 0.3])], ids=str)
def test_a_path_is_made_again_from_its_recipes(path):
    network = small()
    first = path.candidates(network, X)
    again = rebuild([c.recipe for c in first], network, X)
    assert len(again) == len(first) > 1
    for one, other in zip(first, again, strict=True):
        assert hash_of_network(one.build()) == hash_of_network(other.build())


def test_given_networks_cannot_be_made_again_and_changed_recipes_are_named():
    network = small()
    found = Networks({"a": network, "b": nn.Linear(6, 3)}).candidates(network, X)
    assert [c.name for c in found] == ["a", "b"] and found[0].build() is network
    assert rebuild([c.recipe for c in found], network, X) is None
    for recipe in (
        {"kind": "units", "exclude": [], "kept": {"other": "f"}},
        {"kind": "units", "exclude": []},
    ):
        with pytest.raises(CertificateError, match=r"another network|was changed"):
            rebuild([recipe], network, X)


def test_what_is_no_path_is_named():
    with pytest.raises(CertificateError, match=r"scope='all'.*must rise"):
        Weights("all", [0.5, 0.2])
    with pytest.raises(CertificateError, match="none of that name"):
        path_from("lottery")
    with pytest.raises(CertificateError, match="no network"):
        path_from([])
    with pytest.raises(CertificateError, match="1: int"):
        Networks([small(), 3])
    with pytest.raises(CertificateError, match="must fall"):
        Units(shares=[0.2, 0.5]).candidates(small(), X)
    with pytest.raises(CertificateError, match="single weights"):
        Units(MagnitudeEdges()).candidates(small(), X)
    broken = small()
    broken[0].weight.data[0, 0] = float("nan")
    with pytest.raises(CertificateError, match=r"'0\.weight' are not all finite"):
        Weights().candidates(broken, X)
    with pytest.raises(CertificateError, match="no weights of two dimensions"):
        Weights().candidates(nn.ReLU(), X)
