"""Rows of layers drawn by Hypothesis: what the surgery tests are run on."""

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import nn

from bayesprune.errors import NothingToGateError
from bayesprune.structure.graph import GraphNetwork, provable_structure
from bayesprune.structure.groups import close_over

ACTIVATIONS = [
    nn.ReLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Tanh,
    nn.GELU,
    nn.ELU,
    nn.SiLU,
    nn.Hardswish,
    nn.LogSigmoid,
]
CONVS = {1: nn.Conv1d, 2: nn.Conv2d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
POOLS = {
    1: [lambda: nn.MaxPool1d(2), lambda: nn.AvgPool1d(2, padding=1), lambda: nn.AdaptiveAvgPool1d(2)],
    2: [lambda: nn.MaxPool2d(2), lambda: nn.AvgPool2d(2, padding=1), lambda: nn.AdaptiveMaxPool2d(2)],
}


class Functional(nn.Module):
    """The way people write LeNets: functions, and a view that flattens."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3)
        self.conv2 = nn.Conv2d(channels, 3, 3, padding=1)
        self.fc1 = nn.Linear(3 * 9, hidden)
        self.fc2 = nn.Linear(hidden, 2)

    def forward(self, x):
        x = torch.nn.functional.softplus(torch.nn.functional.max_pool2d(self.conv1(x), 2))
        x = torch.nn.functional.avg_pool2d(self.conv2(x).relu(), 2, stride=1, padding=0)
        x = torch.nn.functional.adaptive_avg_pool2d(x, 3)
        x = x.view(x.size(0), -1)
        return self.fc2(torch.sigmoid(self.fc1(x)))


@st.composite
def rows_of_layers(draw):
    """(network, example) in float64, in train mode, with random normalisation statistics."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    kind = draw(st.sampled_from(["dense", "conv1", "conv2", "functional"]))
    if kind == "functional":
        network, example = (
            Functional(draw(st.integers(2, 4)), draw(st.integers(2, 5))),
            torch.zeros(1, 1, 8, 8),
        )
    elif kind == "dense":
        width = draw(st.integers(1, 5))
        network, example = nn.Sequential(*_dense(draw, width)), torch.zeros(2, width)
    else:
        network, example = _convolutional(draw, int(kind[-1]))
    network = network.double().train()
    randomise_norms(network)
    return network, example.double()


def randomise_norms(network):
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)


def _dense(draw, width):
    layers = []
    if draw(st.booleans()):
        layers.append(nn.BatchNorm1d(width))
    for _ in range(draw(st.integers(1, 3))):
        units = draw(st.integers(1, 5))
        layers.append(nn.Linear(width, units, bias=draw(st.booleans())))
        if draw(st.booleans()):
            layers.append(nn.BatchNorm1d(units, affine=draw(st.booleans())))
        layers.append(draw(st.sampled_from(ACTIVATIONS))())
        width = units
    return [*layers, nn.Linear(width, 2)]


def _convolutional(draw, dims):
    channels, layers = draw(st.integers(1, 3)), []
    example = torch.zeros(2, channels, *([12] * dims))
    for _ in range(draw(st.integers(1, 2))):
        filters = draw(st.integers(2, 4))
        settings = {
            "padding": draw(st.integers(0, 1)),
            "stride": draw(st.integers(1, 2)),
            "bias": draw(st.booleans()),
        }
        layers.append(CONVS[dims](channels, filters, 3, **settings))
        if draw(st.booleans()):
            layers.append(NORMS[dims](filters))
        layers.append(draw(st.sampled_from(ACTIVATIONS))())
        channels = filters
    layers.append(draw(st.sampled_from(POOLS[dims]))() if draw(st.booleans()) else nn.Identity())
    layers.append(nn.Flatten())
    with torch.no_grad():
        width = nn.Sequential(*layers).eval()(example).shape[1]
    if draw(st.booleans()):
        layers.append(
            draw(st.sampled_from(ACTIVATIONS))()
        )  # between a flatten and its reader: f(0) may not be 0
    if draw(st.booleans()):
        layers.append(nn.BatchNorm1d(width))
    return nn.Sequential(*layers, *_dense_after(draw, width)), example


def _dense_after(draw, width):
    hidden = draw(st.integers(2, 4))
    return [nn.Linear(width, hidden), nn.Softplus(), nn.Linear(hidden, 2)]


def gated_of(network, example, exclude=(), inputs=None):
    """The network under gates; a drawn one that has no unit to gate is passed over."""
    try:
        return GraphNetwork(provable_structure(network, example, exclude, inputs=inputs))
    except NothingToGateError:
        assume(False)


def cut_(gated, alive, *more, **kinds):
    """Cut, with the units that nobody reads any more; which ones are left."""
    closed = close_over(gated.slots, alive)
    gated.cut_(closed, *more, **kinds)
    return closed
