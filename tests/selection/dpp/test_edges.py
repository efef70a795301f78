"""DPP edge pruning: draws have the enumerated probabilities of every unit's kernel; re-weighting is least "
"squares."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import bayesprune as bp
from bayesprune.errors import SelectionError
from bayesprune.selection import DPPEdges, Fuse, MagnitudeEdges, RandomEdges, Subject, path, select
from bayesprune.selection.dpp.kernel import edge_distances
from bayesprune.selection.fuse_edges import refitted
from bayesprune.structure.graph.incoming import incoming
from tests.selection.networks import EXAMPLES, example_of

FALSE_ALARM = 1e-4
"""Probability with which one of the χ² tests fails although the sampler is right; seeds are fixed."""

LAYERS = {
    "linear": lambda: (nn.Linear(7, 6), torch.randn(5, 7)),
    "linear over positions": lambda: (nn.Linear(7, 6), torch.randn(5, 3, 7)),
    "conv1d": lambda: (nn.Conv1d(4, 6, 3, stride=2, padding=1), torch.randn(5, 4, 11)),
    "conv2d": lambda: (nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1)), torch.randn(5, 4, 9, 8)),
    "dilated": lambda: (nn.Conv2d(4, 6, 3, dilation=2, groups=2), torch.randn(5, 4, 9, 8)),
    "same": lambda: (nn.Conv2d(4, 6, 4, padding="same", dilation=(1, 2)), torch.randn(5, 4, 9, 8)),
    "depthwise": lambda: (nn.Conv2d(4, 4, 3, groups=4), torch.randn(5, 4, 6, 6)),
    "conv3d": lambda: (nn.Conv3d(2, 6, 2, padding=1), torch.randn(5, 2, 4, 3, 5)),
}


class Around(nn.Module):
    """A layer between two that make and read units, so that there is something to prune."""

    def __init__(self, layer: nn.Module, x: torch.Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.after = nn.LazyLinear(4)
        self.head = nn.Linear(4, 2)
        self(x)

    def forward(self, x):
        return self.head(self.after(self.layer(x).flatten(1)).relu())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_what_a_weight_is_multiplied_by_gives_the_layers_sums(name):
    torch.manual_seed(0)
    layer, x = LAYERS[name]()
    network = Around(layer, x).double()
    subject = Subject.of(network, x.double())
    use = next(use for use in next(incoming(subject.network, x.double())) if use.weight == "layer.weight")
    weight = layer.weight.detach().flatten(1).unflatten(0, (len(use.values), -1))  # (groups, own, fan-in)
    sums = (use.values @ weight.mT).transpose(0, 1).flatten(1)  # (samples, units)
    layer.bias.data.zero_()
    expected = layer(x.double()).detach()
    expected = expected if isinstance(layer, nn.Linear) else expected.movedim(1, -1)
    torch.testing.assert_close(sums, expected.flatten(0, -2))


def contributions(weight: torch.Tensor, values: torch.Tensor) -> np.ndarray:
    """(fan-in, numbers), w_i x_i written out."""
    return (weight[:, None] * values.T).numpy()


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "convolution"])
@pytest.mark.parametrize("beta", ["rows", "median", 0.3])
def test_every_unit_draws_from_its_own_k_dpp(conv, beta):
    """Units of equal weights are as many independent draws; their subsets are enumerated."""
    torch.manual_seed(3)
    units, k = 600, 3
    layer = nn.Conv1d(2, units, 3) if conv else nn.Linear(6, units)
    layer.weight.data[:] = layer.weight[:1].detach().clone()
    head = nn.Linear(units, 2)
    tail = [nn.AdaptiveAvgPool1d(1), nn.Flatten()] if conv else []
    network = nn.Sequential(layer, nn.ReLU(), *tail, head).double()
    x = torch.randn(9, 2, 7).double() if conv else torch.randn(9, 6).double()
    subject = Subject.of(network, x)
    name = "0.weight"
    values = next(use for use in next(incoming(subject.network, x)) if use.weight == name).values[0]
    vectors = contributions(layer.weight[0].detach().flatten(), values)
    distances = ((vectors[:, None] - vectors) ** 2).sum(-1)
    apart = distances[np.triu_indices(6, 1)]
    width = {"rows": 10 / vectors.shape[1], "median": 1 / np.median(apart)}.get(beta, beta)
    kernel = np.exp(-width * distances) + 0.01 * np.eye(6)
    chances = {s: np.linalg.det(kernel[np.ix_(s, s)]) for s in combinations(range(6), k)}
    total = sum(chances.values())
    half = sum(weight.numel() for weight in subject.weights().values()) // 2  # k of 6 for every unit
    budget = subject.dense_parameters - half
    masks = select(DPPEdges(beta=beta), subject, parameters=budget, seed=11)[name].flatten(1)
    drawn = Counter(tuple(m.nonzero().squeeze(1).tolist()) for m in masks)
    assert {len(subset) for subset in drawn} == {k}
    expected = np.array([chances[s] / total * units for s in chances])
    seen = np.array([drawn[s] for s in chances])
    small = expected < 5  # taken together
    seen, expected = (np.append(n[~small], n[small].sum()) for n in (seen, expected))
    seen, expected = seen[expected > 0], expected[expected > 0]
    assert len(expected) > 10
    assert stats.chisquare(seen, expected).pvalue > FALSE_ALARM


def test_distances_are_those_of_contributions_written_out():
    torch.manual_seed(0)
    weight, values = torch.randn(5).double(), torch.randn(30, 5).double()
    vectors = contributions(weight, values)
    expected = ((vectors[:, None] - vectors) ** 2).sum(-1)
    found = edge_distances(weight.numpy(), (values.T @ values).numpy())
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_edges_that_carry_nothing_come_last():
    """An input that is zero on all rows, and a weight that is zero."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2))
    network[0].weight.data[2, 6] = 0.0
    x = torch.randn(20, 8)
    x[:, [1, 4]] = 0.0
    subject = Subject.of(network, x)
    for share in (0.9, 0.7, 0.5):
        mask = select(DPPEdges(), subject, share=share, seed=1)["0.weight"]
        for unit, kept in enumerate(mask):
            idle = torch.zeros(8, dtype=torch.bool)
            idle[[1, 4]] = True
            idle[6] = unit == 2
            assert not bool(kept[idle].any()) or bool(kept[~idle].all())


def test_filters_of_groups_look_at_their_own_channels():
    """Of the second group one channel is zero on all rows, of the first group none."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    x = torch.randn(20, 4, 8)
    x[:, 3] = 0.0
    mask = select(DPPEdges(), Subject.of(network, x), share=0.6, seed=1)["0.weight"]
    assert bool(mask[:3, 1].any())
    assert bool(mask[3:, 0].all()) and not bool(mask[3:, 1, 1:].any())


def test_draws_are_the_same_whatever_is_held():
    example = example_of("lenet5")
    subject = Subject.of(example.network, example.x)
    held, made_anew = (list(path(subject, None, DPPEdges(memory=m), [0.8, 0.5], seed=3)) for m in (1.0, 0.0))
    for one, other in zip(held, made_anew, strict=True):
        assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_unit_keeps_the_same_share(name):
    example = example_of(name)
    subject = Subject.of(example.network, example.x)
    for share in (0.8, 0.6):
        masks = select(DPPEdges(), subject, share=share)
        there = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
        for mask in masks.values():
            counts = mask.flatten(1).sum(1)
            assert bool(((counts - there * mask[0].numel()).abs() <= 1).all())


def test_kept_edges_are_those_of_least_squares():
    """NumPy's own answer; of the first layer as the coefficients of what is lost on what is kept."""
    torch.manual_seed(0)
    example = example_of("mlp")
    subject = Subject.of(example.network, example.x)
    masks = select(RandomEdges(), subject, share=0.5, seed=2)
    small = Fuse(rows=example.x, ridge=0.0).zeroed(subject, masks)
    x, mask = example.x.numpy(), masks["fc1.weight"].numpy()
    weight = example.network.fc1.weight.detach().numpy()
    for unit, stays in enumerate(mask):
        lost = x[:, ~stays] @ weight[unit, ~stays]
        change = np.linalg.lstsq(x[:, stays], lost, rcond=None)[0]
        found = small.fc1.weight[unit].detach().numpy()
        np.testing.assert_allclose(found[stays], weight[unit, stays] + change, rtol=1e-7, atol=1e-9)
        assert not found[~stays].any()
    # the second layer: what the pruned first one hands on, fitted to the sums of the dense network
    hidden, now = (net.relu1(net.fc1(example.x)).detach().numpy() for net in (example.network, small))
    dense = example.network.fc2.weight.detach().numpy()
    for unit, stays in enumerate(masks["fc2.weight"].numpy()):
        if stays.any():
            start = dense[unit, stays]
            missing = hidden @ dense[unit] - now[:, stays] @ start
            expected = start + np.linalg.lstsq(now[:, stays], missing, rcond=None)[0]
            found = small.fc2.weight[unit].detach().numpy()
            np.testing.assert_allclose(found[stays], expected, atol=1e-7)


def test_a_ridge_holds_weights_where_they_were():
    torch.manual_seed(1)
    values, weight = torch.randn(40, 6).double(), torch.randn(3, 6).double()
    mask = torch.rand(3, 6) < 0.6
    gram = (values.T @ values)[None]
    for ridge in (1e-3, 0.5):
        found = refitted(weight, mask, gram, gram, ridge)
        for unit, stays in enumerate(mask):
            kept = values[:, stays]
            strength = ridge * kept.square().sum() / kept.shape[1]
            left = torch.cat([kept, strength.sqrt() * torch.eye(kept.shape[1]).double()])
            right = torch.cat([values @ weight[unit], strength.sqrt() * weight[unit, stays]])
            torch.testing.assert_close(found[unit, stays], torch.linalg.lstsq(left, right).solution)


@pytest.mark.parametrize("groups", [0, 1, 2], ids=["linear", "convolution", "groups"])
def test_nothing_is_lost_where_removed_edges_are_combinations_of_kept_ones(groups):
    """Half of a unit's inputs (channels) are combinations of the others; on rows never seen as well."""
    torch.manual_seed(0)
    conv = groups > 0
    own = torch.randn(80, 3, *((9,) if conv else ())).double()
    x = torch.cat([own, torch.einsum("ij,nj...->ni...", torch.randn(3, 3).double(), own)], 1)
    if groups == 2:
        other = torch.randn(80, 3, 9).double()
        x = torch.cat([x, other, torch.einsum("ij,njt->nit", torch.randn(3, 3).double(), other)], 1)
    first = nn.Conv1d(6 * groups, 4, 3, groups=groups) if conv else nn.Linear(6, 4)
    tail = [nn.AdaptiveAvgPool1d(1), nn.Flatten()] if conv else []
    network = nn.Sequential(first, nn.Tanh(), *tail, nn.Linear(4, 2)).double()
    subject = Subject.of(network, x[:40])
    mask = torch.ones(first.weight.shape, dtype=torch.bool)
    mask[:, 3:] = False
    small = Fuse(rows=x[:40], ridge=0.0).zeroed(subject, {"0.weight": mask})
    assert float((network(x[40:]) - subject.zeroed({"0.weight": mask})(x[40:])).detach().abs().max()) > 0.05
    torch.testing.assert_close(small(x[40:]), network(x[40:]), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_path_of_edges_is_fused(name):
    example = example_of(name)
    subject = Subject.of(example.network, example.x)
    whole = example.network(example.x).detach()
    for rule in (DPPEdges(), MagnitudeEdges()):
        plain = next(path(subject, None, rule, [0.8], seed=1))
        fused = next(path(subject, None, rule, [0.8], seed=1, fuse=Fuse()))
        assert plain.parameters == fused.parameters
        tensors = dict(fused.network.named_parameters())
        assert all(bool((tensors[n][~m] == 0).all()) for n, m in fused.masks.items())
        gaps = [float((c.network.eval()(example.x) - whole).detach().norm()) for c in (plain, fused)]
        assert gaps[1] < gaps[0]


def test_weights_of_recurrences_stay_whole_and_a_network_of_these_alone_is_refused():
    class Recurrent(nn.Module):
        def __init__(self, head: bool) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 5, batch_first=True)
            self.head = nn.Linear(5, 2) if head else nn.Identity()

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    x = torch.randn(8, 4, 3)
    subject = Subject.of(Recurrent(True), x)
    assert set(select(DPPEdges(), subject, share=0.99)) == {"head.weight"}
    tables = nn.Sequential(nn.Embedding(9, 6), nn.Flatten())
    with pytest.raises((SelectionError, bp.errors.NothingToGateError)):
        select(DPPEdges(), Subject.of(tables, torch.randint(9, (8, 2))), share=0.9)


def test_values_that_are_not_finite_are_named():
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    subject = Subject.of(network, torch.zeros(2, 4))
    dict(subject.network.named_parameters())["0.bias"].data.fill_(torch.inf)
    with pytest.raises(SelectionError, match=r"What '2\.weight' is multiplied by is not all finite"):
        select(DPPEdges(rows=torch.randn(9, 4)), subject, share=0.5)
