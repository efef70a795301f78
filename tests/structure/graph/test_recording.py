"""Graphs written down while a network runs: they are those of ``torch.export``, or there are none."""

import contextlib

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from bayesprune.structure.graph.capture import tracing, unmultiplied
from bayesprune.structure.graph.capture.recording import NotRecorded, recorded

X = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))


class Of(nn.Module):
    """A network of one function of itself and its input."""

    def __init__(self, forward):
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(6, 6), nn.BatchNorm1d(4), nn.Dropout(0.3)
        self.first = self.linear.weight  # tied
        self.plain = torch.ones(6)
        self.register_buffer("buffer", torch.ones(6))
        self.own = [forward]

    def forward(self, x):
        return self.own[0](self, x)


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.lstm, self.token = nn.LSTM(6, 3, batch_first=True), nn.Parameter(torch.randn(1, 1, 6))

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = self.layer(x + self.attention(x, x, x)[0])
        return {"last": self.lstm(x)[0].reshape(x.shape[0] * 5, -1), "first": [x.select(1, 0), None]}


FOLLOWED = {
    "modules": lambda self, x: self.drop(self.norm(self.linear(x))).relu_(),
    "constants": lambda self, x: x * self.plain + torch.tensor([2.0]) + self.buffer,
    "tied": lambda self, x: F.linear(self.linear(x), self.first),
    "several results": lambda self, x: (x.chunk(2, -1)[1], x.max(1)[0]),
    "views": lambda self, x: x.view(x.size(0), -1).narrow(1, 3, 6) + torch.zeros(x.size(0), 6),
    "written into": lambda self, x: x.clone().select(1, 1).mul_(2) + torch.arange(6.0)[x.argmax(1)],
    "float of rows": lambda self, x: x.reshape(2 * x.shape[0], -1).mean(1, keepdim=True),
}


def form(graph: fx.Graph) -> list:
    """Operations and what they read, without what PyTorch notes beside them."""
    nodes = [n for n in graph.nodes if n.op != "get_attr" and "_assert" not in str(n.target)]
    at = {n: i for i, n in enumerate(n for n in nodes if n.op != "placeholder" and "sym_size" not in n.name)}
    told = []
    for node in at:
        reads = [at.get(n, str(n.target).partition("bp_constant")[0]) for n in node.all_input_nodes]
        told.append((str(node.target), reads))
    return [line for line in told if "mul>" not in line[0]]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("network", [*(pytest.param(Of(f), id=n) for n, f in FOLLOWED.items()), Embedded()])
def test_what_is_recorded_is_what_is_exported(network, training):
    network.train(training)
    ours, outputs, _ = tracing._recorded(network, (X,))
    theirs, others, _ = tracing._exported(network, (X,), frozenset())
    assert outputs == others
    assert [line[0] for line in form(ours.graph)] == [line[0] for line in form(theirs.graph)]
    network.eval()
    if not training:
        for rows in (1, 3):
            x = torch.randn(rows, 4, 6)
            expected, given = theirs(x), ours(x)
            for a, b in zip(expected, given, strict=True):
                assert a is b is None or torch.equal(a, b)


def numbers_of(x):
    return torch.from_numpy(np.asarray(x.detach()))


def swallowed(x):
    try:
        return x * x.sum().item()
    except BaseException:
        return x


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.round()

    @staticmethod
    def backward(context, gradient):
        return gradient


def without_gradients(self, x):
    with torch.no_grad():
        return self.linear(x)


def kept(self, x):
    self.seen = x
    return self.linear(x)


def moved(self, x):
    self.buffer = self.buffer * 0.9
    return x + self.buffer


REFUSED = {
    "a number of values": lambda self, x: x * x.sum().item(),
    "a condition": lambda self, x: x if x.sum() > 0 else -x,
    "a caught number": lambda self, x: swallowed(x),
    "numpy": lambda self, x: x + numbers_of(x),
    "a list": lambda self, x: x * x.flatten().tolist()[0],
    "data": lambda self, x: x + x.data,
    "a mask": lambda self, x: x[x > 0],
    "positions": lambda self, x: x.nonzero(),
    "a hidden number": lambda self, x: F.one_hot(x.argmax(-1)).sum(-1),
    "hidden positions": lambda self, x: torch.where(x > 0)[0],
    "half the rows": lambda self, x: x[: len(x) // 2],
    "at most four rows": lambda self, x: x.sum(0, keepdim=True).expand(min(len(x), 4), -1, -1),
    "a loop over rows": lambda self, x: torch.stack([self.linear(row) for row in x]),
    "rows as a scale": lambda self, x: x * (1 / len(x)),
    "rows in a constant": lambda self, x: x * torch.tensor([float(len(x))]),
    "no gradients": without_gradients,
    "a gradient of its own": lambda self, x: Straight.apply(self.linear(x)),
    "whether there are gradients": lambda self, x: x if self.linear(x).requires_grad else -x,
    "a value that is kept": kept,
    "a buffer that is another one": moved,
    "a parameter that is written into": lambda self, x: x + self.first.data.mul_(1.0)[0],
    "a constant that is written into": lambda self, x: x + self.plain.add_(1.0),
    "a generator": lambda self, x: x + torch.rand(6, generator=torch.Generator()),
    "an error": lambda self, x: x.view(7),
    "another type": lambda self, x: (x, object()),
    "mixed precision": lambda self, x: torch.autocast("cpu", torch.bfloat16)(self.linear)(x),
}


@pytest.mark.parametrize("forward", [pytest.param(f, id=name) for name, f in REFUSED.items()])
def test_what_depends_on_more_than_operations_is_not_recorded(forward):
    network = Of(forward)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(NotRecorded):
        tracing._recorded(network, (X,))
    if forward is not moved:
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_recording_leaves_chance_and_statistics_as_they_were():
    network = Of(FOLLOWED["modules"]).train()
    state, mean = torch.get_rng_state(), network.norm.running_mean.clone()
    tracing._recorded(network, (X,))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(network.norm.running_mean, mean)
    assert not network.drop._forward_hooks
    assert not network.drop._forward_pre_hooks


def test_a_dropout_knows_its_module():
    module, _, _ = recorded(Of(FOLLOWED["modules"]).train(), (X,))
    stacks = [n.meta["nn_module_stack"] for n in module.graph.nodes if "dropout" in str(n.target)]
    assert stacks == [{"drop": ("drop", nn.Dropout)}]


def attribute(self, x):
    if self.kept is None:
        self.kept = self.linear(torch.eye(6))
    return x @ self.kept


def in_a_dict(self, x):
    if not self.inside:
        self.inside["y"] = self.linear(torch.eye(6))
    return x @ self.inside["y"]


def in_place(self, x):
    self.plain.copy_(self.linear(torch.eye(6))[0])
    return x * self.plain


@pytest.mark.parametrize("forward", [attribute, in_a_dict, in_place])
def test_modules_keep_no_zeros_of_products_that_were_not_computed(forward, monkeypatch):
    monkeypatch.setattr(unmultiplied, "LARGE", 0)
    network = Of(forward)
    network.kept, network.inside = None, {}
    with contextlib.suppress(NotRecorded):
        recorded(network, (X,))
    with torch.no_grad():
        expected = network.linear(torch.eye(6))
    kept = {attribute: network.kept, in_a_dict: network.inside.get("y"), in_place: network.plain}[forward]
    assert torch.allclose(kept, expected[0] if forward is in_place else expected)


def test_products_are_not_computed_that_only_say_how_large_things_are(monkeypatch):
    monkeypatch.setattr(unmultiplied, "LARGE", 0)
    seen = []
    network = Of(lambda self, x: seen.append(self.linear(x).detach()) or x + self.linear(x))
    graph, *_ = recorded(network, (X,))
    assert seen[0].shape == X.shape and not bool(seen[0].any())
    with torch.no_grad():
        assert torch.allclose(graph(X)[0], X + network.linear(X))


def test_what_fails_on_zeros_is_recorded_on_numbers(monkeypatch):
    monkeypatch.setattr(unmultiplied, "LARGE", 0)
    network = Of(lambda self, x: x @ torch.linalg.inv(self.linear.weight @ self.linear.weight.T))
    graph, *_ = recorded(network, (X,))
    with torch.no_grad():
        assert torch.allclose(graph(X)[0], network(X))


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (2, 4, 3, 5)])
@pytest.mark.parametrize("strided", [False, True])
def test_zeros_of_a_product_are_of_its_shape_and_type(shape, strided):
    x = torch.randn(*shape).double()
    x = x.transpose(0, 1).contiguous().transpose(0, 1) if strided else x
    pairs = [(torch.ops.aten.linear.default, torch.randn(7, 5).double())]
    pairs += [(torch.ops.aten.matmul.default, torch.randn(5, 7).double())]
    for func, other in pairs:
        product = func(x, other)
        zeros = unmultiplied.zeros_of(func, (x, other), {})
        assert (zeros.shape, zeros.dtype) == (product.shape, product.dtype) and not bool(zeros.any())
    with pytest.raises(RuntimeError):
        unmultiplied.zeros_of(torch.ops.aten.linear.default, (x, torch.randn(7, 4).double()), {})
