"""Meeting a budget: counts are those of the network that is cut, and the evidence lost is the least."""

import itertools

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.svi.fitter import WITHIN, Fitter
from bayesprune.svi.trim import trim
from bayesprune.svi.within import within


def gated_for(network, example, **shares):
    return bp.gate(network, example, prior=bp.Budget(**shares), likelihood=bp.Categorical(rows=100))


def conv():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(128, 30), nn.ReLU(), nn.Linear(30, 2),
    )  # fmt: skip
    return network, torch.zeros(1, 1, 12, 12)


def fitter(gated, gain, least=1):
    return Fitter(gated, gated.prior, gain, least)


def drawn_gain(gated, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(gated.alive), generator=generator, dtype=torch.double) + 1


BUDGETS = [{"macs": 0.1}, {"macs": 0.5}, {"params": 0.05}, {"params": 0.5}, {"macs": 0.3, "params": 0.2}]


@pytest.mark.parametrize("shares", BUDGETS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_the_network_that_is_cut_lies_in_the_window_below_its_budget(shares, seed):
    network, example = conv()
    gated = gated_for(network, example, **shares)
    keep = within(fitter(gated, drawn_gain(gated, seed)), gated.alive)
    gated.remove_(~keep)
    assert torch.equal(gated.alive, keep)  # nobody is left unread
    small, dense = bp.count(bp.prune(gated), example), bp.count(network, example)
    left = {"macs": small.macs / dense.macs, "params": small.parameters / dense.parameters}
    used = [left[kind] / share for kind, share in shares.items()]
    assert 1 - WITHIN <= max(used) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_of_units_of_equal_cost_those_with_the_most_evidence_stay(seed):
    network = nn.Sequential(nn.Linear(3, 100), nn.ReLU(), nn.Linear(100, 2))
    gated = bp.gate(
        network, torch.zeros(1, 3), prior=bp.Budget(macs=0.4), likelihood=bp.Categorical(rows=10),
        exclude=("input",),
    )  # fmt: skip
    gain = drawn_gain(gated, seed)
    keep = within(fitter(gated, gain), gated.alive)
    assert set(keep.nonzero().squeeze(1).tolist()) == set(gain.topk(40).indices.tolist())


def best_gain(gated, gain, budget):
    """The most evidence in the window: in a dense network only the counts of the groups decide the cost, so
    the best of each count are tried in every combination."""
    a, b, c = (part.sort(descending=True).values.cumsum(0).tolist() for part in gain.split([20, 30, 20]))
    low, high = (1 - WITHIN) * budget * gated.dense_macs, budget * gated.dense_macs
    return max(
        a[i - 1] + b[j - 1] + c[k - 1]
        for i, j, k in itertools.product(range(1, 21), range(1, 31), range(1, 21))
        if low <= i * j + j * k + 2 * k <= high
    )


def test_little_evidence_is_lost_against_the_best_of_all_networks():
    network = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 2))
    lost = []
    for seed, budget in itertools.product(range(4), (0.1, 0.4)):
        gated = gated_for(network, torch.zeros(1, 20), macs=budget)
        gain = drawn_gain(gated, seed).abs()
        keep = within(fitter(gated, gain), gated.alive)
        lost.append(1 - float(gain[keep].sum()) / best_gain(gated, gain, budget))
    assert min(lost) > -1e-9 and max(lost) < 0.12 and sum(lost) / len(lost) < 0.05


def test_from_far_above_no_group_is_spent_for_another():
    """Units that are all worth their price: one by one, inputs would go first and make hidden units cheap,
    until one input was left of 784.
    """
    network = nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    gated = gated_for(network, torch.zeros(1, 784), params=0.05)
    noise = torch.randn(len(gated.alive), generator=torch.Generator().manual_seed(0), dtype=torch.double)
    keep = within(fitter(gated, gated.prior.prices * (1 + 0.3 * noise)), gated.alive)
    kept = {name: int(mask.sum()) / len(mask) for name, mask in gated.by_group(keep).items()}
    assert min(kept.values()) > 0.05 and max(kept.values()) < 0.6


def test_groups_keep_their_least_units():
    network, example = conv()
    gated = gated_for(network, example, macs=0.2)
    gain = drawn_gain(gated, 0)
    gain[gated.slices()["2"]] = -100.0  # nobody wants the second convolution
    keep = gated.by_group(within(fitter(gated, gain, least=3), gated.alive))
    assert int(keep["2"].sum()) == 3 and all(int(mask.sum()) >= 3 for mask in keep.values())


def test_strict_trimming_stays_above():
    network, example = conv()
    gated = gated_for(network, example, macs=0.3)
    ours, everyone = fitter(gated, drawn_gain(gated, 1)), torch.ones_like(gated.alive)
    keep = trim(ours, gated.alive, everyone, high=1.0, low=1.0, strict=True)
    assert 1.0 <= ours.ratio(keep) < 1.05
    none = trim(ours, gated.alive, torch.zeros_like(everyone), high=1.0, low=1.0, strict=True)
    assert torch.equal(none, gated.alive)
