"""Statistics of batch normalisation belong to weights; averaged weights need their own."""

import copy

import torch
from torch import nn

import bayesprune as bp
from bayesprune.structure.graph import GraphNetwork, analyse
from tests.structure.graph.networks import CASES


class Normed(nn.Module):
    """A residual network with batch normalisation, one of them shared, and dropout."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Linear(4, 12), nn.BatchNorm1d(12)
        self.mix, self.inner, self.drop = nn.Linear(12, 12), nn.BatchNorm1d(12), nn.Dropout(0.3)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head(self.drop(self.norm(x + self.inner(self.mix(x)).relu())))


def batches():
    generator = torch.Generator().manual_seed(3)
    return [3 * torch.randn(16, 4, generator=generator) + 1 for _ in range(5)]


def by_hand_(network):
    """PyTorch's own way: momentum=None makes running statistics plain means over batches."""
    network.eval()
    for norm in network.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
    with torch.no_grad():
        for x in batches():
            network(x)
    return network


def test_they_are_those_that_pytorch_takes():
    network = Normed()
    gated = analyse(network, torch.randn(2, 4)).gated
    gated.renormalise_(batches())
    expected = by_hand_(network).state_dict()
    for name, value in gated.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-6)
    assert gated.network.norm.num_batches_tracked == 10 and gated.network.norm.momentum == 0.1


def test_they_follow_a_cut():
    network = Normed()
    analysis = analyse(network, torch.randn(2, 4))
    analysis.cut_({"stem": torch.arange(12) % 3 > 0})
    small = analysis.gated.plain()
    analysis.gated.renormalise_(batches())
    expected = by_hand_(small).state_dict()
    assert expected["norm.running_mean"].shape == (8,)
    for name, value in analysis.gated.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-6)


def test_they_follow_the_removal_of_a_section():
    """Its own normalisation is gone; that of what is left sees the shortcut alone."""
    network = Normed()
    analysis = analyse(network, torch.randn(2, 4))
    analysis.cut_({"layers": torch.tensor([False])})
    analysis.gated.renormalise_(batches())
    network.inner = nn.Identity()
    network.mix = nn.Linear(12, 12)
    nn.init.constant_(network.mix.weight, 0.0)
    nn.init.constant_(network.mix.bias, 0.0)
    expected, small = by_hand_(network).state_dict(), analysis.gated.plain()
    assert "inner.running_mean" not in small.state_dict()
    for name in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
        torch.testing.assert_close(small.state_dict()[name], expected[name], rtol=1e-6, atol=1e-6)


def test_statistics_that_training_leaves_alone_stay():
    class Kept(Normed):
        def train(self, mode=True):
            super().train(mode)
            self.inner.eval()
            return self

    network = Kept()
    network.inner.running_mean.fill_(0.7)
    gated = analyse(network, torch.randn(2, 4)).gated
    gated.renormalise_(batches())
    assert torch.equal(gated.network.inner.running_mean, torch.full((12,), 0.7))
    assert gated.network.norm.num_batches_tracked == 10


def test_networks_that_cannot_run_as_their_own_class_too():
    """Sizes are written down in this one: after a cut only its graph runs."""
    case = CASES["split_by_sizes"]
    analysis = analyse(case.network(torch.float32), case.batch(2, torch.float32))
    alive = {g.name: torch.arange(g.size) != 1 for g in analysis.groups}
    analysis.cut_(alive)
    name = next(n for n in analysis.gated.network.state_dict() if n.endswith("running_mean"))
    x = case.batch(64, torch.float32)[0]
    analysis.gated.renormalise_([x])
    trained = analysis.gated.plain().train()
    trained(x)
    before = analysis.gated.network.state_dict()[name]
    # A training step moves a running mean by momentum times (batch mean − running mean): nothing is left.
    torch.testing.assert_close(trained.state_dict()[name], before, rtol=1e-5, atol=1e-5)


def fitted():
    torch.manual_seed(1)
    x = 2 * torch.randn(256, 4) + 1
    y = (x[:, 0] + x[:, 1] > 2).long() + (x[:, 2] > 1).long()
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(1.0))
    torch.manual_seed(0)
    gated = bp.gate(Normed(), x[:2], prior=prior, likelihood=bp.Categorical(rows=256))
    assert isinstance(gated.network, GraphNetwork)
    # Large steps and much averaging: the averaged weights are far from the last ones.
    rates = {"learning_rate": 3e-2, "compact_learning_rate": 3e-2, "compact_floor": 1.0}
    recipe = bp.Recipe(**rates, gates=bp.GateSteps(), decide=0.5, averaging=0.8)
    settings = {"epochs": 20, "batch_size": 32, "recipe": recipe, "progress": False}
    result = bp.fit(gated, (x, y), **settings)
    return bp.evaluate(bp.prune(result), (x, y), gated.likelihood), result


def test_a_fit_ends_with_the_statistics_of_its_averaged_weights(monkeypatch):
    with_theirs, result = fitted()
    with monkeypatch.context() as patch:
        patch.setattr(GraphNetwork, "renormalise_", lambda self, batches: None)
        with_those_of_the_last_step, _ = fitted()
    assert with_theirs.nll < 0.9 * with_those_of_the_last_step.nll
    network = copy.deepcopy(result.gated.network)
    assert network.network.norm.num_batches_tracked == 2 * 256 // 32
