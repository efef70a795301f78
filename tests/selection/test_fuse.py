"""Fusing: nothing is lost where removed units are combinations of kept ones; else least squares' own "
"answer."""

import copy

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import SelectionError
from bayesprune.selection import DPP, Fuse, Magnitude, RandomNodes, Subject, path, prune
from bayesprune.selection.fuse import fusable
from tests.selection.networks import example_of


def linear_combinations_(network: nn.Module, layer: str, kept: torch.Tensor, follow: str = "") -> None:
    """Make the removed units' weights combinations of the kept ones', so that their outputs are, too."""
    torch.manual_seed(0)
    module = network.get_submodule(layer)
    removed = ~kept
    mix = torch.randn(int(removed.sum()), int(kept.sum()), dtype=module.weight.dtype)
    with torch.no_grad():
        for tensor in (module.weight, module.bias):
            tensor[removed] = (
                (mix @ tensor[kept].flatten(1)).reshape(-1, *tensor.shape[1:])
                if tensor.ndim > 1
                else (mix @ tensor[kept])
            )


class Linear(nn.Sequential):
    """No non-linearity between the layers: activations are as combined as weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.relu, self.head = (
            nn.Linear(5, 8),
            nn.Linear(8, 6),
            nn.ReLU(),
            nn.Linear(6, 3),
        )


class Convolutions(nn.Sequential):
    """Two convolutions in a row with padding, a flatten, and average pooling between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.pool, self.flat, self.head = nn.AvgPool2d(2), nn.Flatten(), nn.Linear(45, 3)


class Residual(nn.Module):
    """The stream is read by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(5, 8), nn.Linear(8, 7), nn.Linear(8, 3)
        self.back = nn.Linear(7, 8)

    def forward(self, x):
        x = self.fc1(x)
        return self.head(x) + self.fc2(x).tanh().sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("build", "layer", "x"),
    [
        (Linear, "fc1", torch.randn(60, 5)),
        (Convolutions, "conv1", torch.randn(30, 2, 6, 6)),
        (Convolutions, "conv2", torch.randn(60, 2, 6, 6)),
        (Residual, "fc1", torch.randn(60, 5)),
    ],
    ids=["linear", "convolution", "flattened filters", "two readers"],
)
def test_combinations_of_kept_units_are_replaced_exactly(build, layer, x):
    torch.manual_seed(1)
    network, x = build().double(), x.double()
    width = len(network.get_submodule(layer).weight)
    kept = torch.arange(width) % 3 != 1
    linear_combinations_(network, layer, kept)
    masks = {layer: kept}
    whole = network(x)
    fused = prune(network, masks, x, fuse=Fuse(ridge=0.0))
    cut = prune(network, masks, x)
    assert (cut(x) - whole).abs().max() > 0.1  # the removal does matter
    torch.testing.assert_close(fused(x), whole, rtol=0, atol=1e-9)
    fresh = torch.randn_like(x)
    torch.testing.assert_close(fused(fresh), network(fresh), rtol=0, atol=1e-8)
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=60))
    torch.testing.assert_close(prune(gated, masks, x, fuse=Fuse(ridge=0.0))(x), whole, rtol=0, atol=1e-9)


def test_one_reader_gets_what_least_squares_gives():
    torch.manual_seed(0)
    network, x = (
        nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3)).double(),
        torch.randn(80, 5).double(),
    )
    kept = torch.arange(12) % 2 == 0
    fused = prune(network, {"0": kept}, x, fuse=Fuse(ridge=0.0))
    hidden = network[1](network[0](x))
    target = hidden @ network[2].weight.T
    solution = torch.linalg.lstsq(hidden[:, kept], target).solution
    torch.testing.assert_close(fused[2].weight, solution.T, rtol=0, atol=1e-9)
    assert torch.equal(fused[2].bias, network[2].bias)


def test_a_large_ridge_leaves_the_weights_as_they_are():
    example = example_of("lenet5")
    subject = Subject.of(example.network, example.x)
    masks = next(path(subject, None, Magnitude(), [0.5])).masks
    plain, fused = subject.cut(masks), Fuse(ridge=1e12)(subject, masks)
    for (name, a), b in zip(plain.named_parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "residual", "attention"])
@torch.no_grad()
def test_fusing_comes_nearer_to_the_dense_network_and_leaves_the_subject_alone(name):
    example = example_of(name)
    subject = Subject.of(example.network, example.x)
    before = copy.deepcopy(subject.network.state_dict())
    whole = example.network(example.x)
    assert fusable(subject.network, example.x)
    closer = 0
    for seed in range(4):
        cut = next(path(subject, None, RandomNodes(), [0.75], seed=seed))
        fused = next(path(subject, None, RandomNodes(), [0.75], seed=seed, fuse=Fuse()))
        assert fused.parameters == cut.parameters
        errors = [float((c.network.eval()(example.x) - whole).square().mean()) for c in (cut, fused)]
        closer += errors[1] < errors[0]
    assert closer == 4
    assert all(torch.equal(before[key], value) for key, value in subject.network.state_dict().items())


def test_a_shared_weight_is_left_as_it_is():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.twice, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            x = self.twice(self.first(x).relu()).tanh()
            return self.head(self.twice(x).relu())

    torch.manual_seed(0)
    x = torch.randn(20, 4)
    places = fusable(Subject.of(Shared(), x).network, x)
    assert all("twice.weight" not in place.weights for place in places)


def test_bad_input_is_named():
    example = example_of("mlp")
    with pytest.raises(SelectionError, match=r"ridge=-1\.0"):
        next(path(example.network, example.x, DPP(), [0.5], fuse=Fuse(ridge=-1.0)))
    with pytest.raises(SelectionError, match="Fuse looks at activations, at 1 rows"):
        next(path(example.network, example.x[:1], Magnitude(), [0.5], fuse=Fuse()))
