"""Rules for trained networks against their formulas."""

import pytest
import torch

import bayesprune as bp
from bayesprune.selection import (
    DPP,
    Magnitude,
    MagnitudeEdges,
    Outgoing,
    Subject,
    Taylor,
    gaussian_kernel,
    select,
)
from tests.selection.networks import example_of, posterior_of


def test_magnitudes_are_norms_of_the_weights_that_make_a_unit():
    example = example_of("lenet5")
    subject = Subject.of(example.network, example.x)
    for p in (1, 2):
        scores = Magnitude(p).scores(subject)
        for name in ("conv1", "conv2", "fc1"):
            weight = example.network.get_submodule(name).weight
            torch.testing.assert_close(scores[name], weight.detach().flatten(1).norm(p, dim=1))


def test_outgoing_sums_the_weights_that_read_a_unit():
    example = example_of("lenet5")
    subject = Subject.of(example.network, example.x)
    scores = Outgoing().scores(subject)
    torch.testing.assert_close(scores["conv1"], example.network.conv2.weight.detach().abs().sum((0, 2, 3)))
    columns = example.network.fc1.weight.detach().abs().sum(0).reshape(6, 4).sum(1)
    torch.testing.assert_close(scores["conv2"], columns)


@pytest.mark.parametrize("name", ["mlp", "lenet5"])
def test_taylor_is_the_sum_of_gradient_times_activation(name):
    example = example_of(name)
    subject = Subject.of(example.network, example.x)
    kept = {}
    layer = "fc2" if name == "mlp" else "conv2"
    reads = example.network.get_submodule(layer)

    def keep(_, inputs):
        inputs[0].retain_grad()
        kept["a"] = inputs[0]

    handle = reads.register_forward_pre_hook(keep)
    example.likelihood.nll(example.network(example.x), example.y).sum().backward()
    handle.remove()
    expected = (
        (kept["a"].grad * kept["a"]).flatten(2).sum(2) if name == "lenet5" else kept["a"].grad * kept["a"]
    )
    example.network.zero_grad(set_to_none=True)
    scores = Taylor(example.x, example.y, example.likelihood).scores(subject)
    torch.testing.assert_close(scores["fc1" if name == "mlp" else "conv1"], expected.abs().mean(0).detach())


def test_the_kernel_has_the_stated_bandwidths():
    vectors = torch.randn(8, 30).numpy()
    distances = ((vectors[:, None] - vectors) ** 2).sum(-1)
    for beta, value in {"rows": 10 / 30, 0.01: 0.01}.items():
        torch.testing.assert_close(
            torch.from_numpy(gaussian_kernel(vectors, beta)),
            torch.from_numpy(distances).double().mul(-value).exp(),
            atol=1e-5,
            rtol=1e-5,
        )
    middle = gaussian_kernel(vectors, "median")
    apart = torch.from_numpy(middle)[torch.triu_indices(8, 8, 1).unbind()]
    assert 0.3 < float(apart.median()) < 0.45  # exp(-1) in the middle


def test_a_dpp_keeps_one_of_each_pair_of_copies():
    """Twelve units, six of them copies: with k = 6 no pair is drawn twice, once jitter is small."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
    with torch.no_grad():
        for tensor in (network[0].weight, network[0].bias):
            tensor[6:] = tensor[:6]
    x = torch.randn(100, 5)
    subject = Subject.of(network, x)
    for seed in range(20):
        mask = select(DPP(k=6, jitter=1e-9, beta="median"), subject, seed=seed)["0"]
        assert torch.equal(mask[:6] ^ mask[6:], torch.ones(6, dtype=torch.bool))


def test_magnitude_edges_keep_the_largest_weights():
    example = example_of("mlp")
    subject = Subject.of(example.network, example.x)
    masks = select(MagnitudeEdges(), subject, share=0.4, scope="global")
    sizes = torch.cat([w.abs().flatten() for w in subject.weights().values()])
    kept = torch.cat([masks[name].flatten() for name in subject.weights()])
    assert float(sizes[kept].min()) > float(sizes[~kept].max())


def test_a_size_given_by_group_is_kept():
    example = example_of("mlp")
    masks = select(DPP(k={"fc1": 5}), Subject.of(example.network, example.x))
    assert {g: int(m.sum()) for g, m in masks.items()} == {"fc1": 5, "fc2": 8}
    assert isinstance(bp.selection.prune(example.network, masks, example.x), torch.nn.Sequential)


def test_filters_and_features_that_were_drawn_apart_do_not_starve():
    """One of six filters and one of 24 features: most draws miss each other."""
    example = example_of("lenet5")
    subject = Subject.of(posterior_of(example), example.x)
    added = 0
    for seed in range(20):
        masks = select(DPP(k={"conv2": 1, "flatten": 1}), subject, seed=seed)
        assert all(bool(mask.any()) for mask in masks.values())
        filters = torch.arange(24) // 4
        assert bool(masks["conv2"][filters[masks["flatten"]]].all())
        added += int(masks["flatten"].sum()) == 1
    assert added
