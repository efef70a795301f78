"""Which networks are rows of layers; what they have to gate, and that groups' costs are counted right."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bayesprune.errors import NothingToGateError, SettingsError
from bayesprune.structure import count
from bayesprune.structure.graph import analyse
from bayesprune.structure.row import find_row
from tests.structure.networks import Functional


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc2(x + self.fc1(x))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.fc(self.fc(x).relu()))


class DataDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x) if x.sum() > 0 else self.fc(-x)


class Tuple(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x), x


class AlwaysDropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 50), nn.Linear(50, 2)

    def forward(self, x):
        return self.fc2(F.dropout(self.fc1(x)))


def two(*middle, last=3):
    return nn.Sequential(nn.Linear(3, 3), *middle, nn.Linear(last, 2))


class Functions(nn.Module):
    """Functions and a reshape for layers, with numbers of their own."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 1), nn.Linear(2, 2)

    def forward(self, x):
        x = F.leaky_relu(F.max_pool2d(self.conv(x), 3, stride=1, padding=1), 0.3)
        x = F.dropout2d(x, 0.25, training=self.training)
        x = F.hardtanh(F.avg_pool2d(x, kernel_size=2, ceil_mode=True), -0.5, 0.5)
        return F.log_softmax(self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)), dim=1)


NO_ROW = {
    "residual": (Residual(), torch.zeros(2, 3)),
    "grouped": (nn.Sequential(nn.Conv1d(2, 4, 1), nn.Conv1d(4, 4, 1, groups=2)), torch.zeros(2, 2, 3)),
    "shared": (Shared(), torch.zeros(2, 3)),
    "one module twice": (nn.Sequential(*[nn.Linear(3, 3)] * 2, nn.Linear(3, 2)), torch.zeros(2, 3)),
    "layer norm": (two(nn.LayerNorm(3)), torch.zeros(2, 3)),
    "three dimensions": (two(), torch.zeros(2, 5, 3)),
    "softmax": (two(nn.Softmax(1)), torch.zeros(2, 3)),
    "pooling over units": (two(nn.MaxPool1d(1)), torch.zeros(2, 3)),
    "wrong example": (two(), torch.zeros(2, 4)),
    "control flow": (DataDependent(), torch.zeros(2, 3)),
    "two outputs": (Tuple(), torch.zeros(2, 3)),
    "dropout in eval mode": (AlwaysDropping(), torch.ones(2, 3)),
    "partial flatten": (
        nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(2), nn.Conv1d(2, 2, 1)), torch.zeros(2, 1, 3, 3),
    ),
    "a computed weight": (nn.utils.parametrizations.weight_norm(two()[0]), torch.zeros(2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("network, example", NO_ROW.values(), ids=NO_ROW)
def test_what_is_no_row_of_plain_layers(network, example):
    assert find_row(network, example) is None


def test_a_row_is_found_and_built_again():
    network, example = Functions().eval(), torch.rand(2, 1, 5, 5)
    row = find_row(network, example)
    layers = row.sequential(network, {})
    assert row.flattens == () and row.reads_inputs == "conv"
    assert torch.equal(layers(example), network(example))
    kinds = {type(layer): layer for layer in layers}
    assert kinds[nn.LeakyReLU].negative_slope == 0.3
    assert kinds[nn.Dropout2d].p == 0.25 and not kinds[nn.Dropout2d].training
    assert kinds[nn.MaxPool2d].padding == 1
    assert kinds[nn.AvgPool2d].ceil_mode is True


def test_softmax_at_the_end_is_welcome():
    assert [g.name for g in analyse(two(nn.ReLU()).append(nn.LogSoftmax(1)), torch.zeros(2, 3)).groups] == [
        "input",
        "0",
    ]


@pytest.mark.parametrize(
    "network, example, exclude",
    [
        (nn.Sequential(nn.ReLU()), torch.zeros(2, 3), ()),
        (nn.Sequential(nn.Linear(1, 3)), torch.zeros(2, 1), ()),
        (two(), torch.zeros(2, 3), ("input", "0")),
    ],
)
def test_nothing_to_gate(network, example, exclude):
    with pytest.raises(NothingToGateError, match="nothing to gate"):
        analyse(network, example, exclude)


@pytest.mark.parametrize("layer", [nn.Linear(3, 2), nn.Linear(4, 1, bias=False)], ids=["classes", "one"])
def test_a_single_layer_is_told_that_its_inputs_can_go(layer):
    """Regression on chosen inputs: nothing is between inputs and outputs, so that what can go are inputs."""
    example = torch.zeros(2, layer.in_features)
    with pytest.raises(NothingToGateError, match="by inputs=True"):
        analyse(layer, example)
    assert [group.size for group in analyse(layer, example, inputs=True).groups] == [layer.in_features]


def test_exclusion_that_matches_nothing_lists_the_groups():
    with pytest.raises(SettingsError, match=r"exclude names 'fc9'.*There are 'input', '0'"):
        analyse(two(), torch.zeros(2, 3), exclude=("input", "fc9"))


def test_exclusion_by_glob():
    analysis = analyse(Functional(3, 4), torch.zeros(1, 1, 8, 8), exclude=("conv*",))
    assert [g.name for g in analysis.groups] == ["view", "fc1"]


def test_groups_know_their_costs():
    analysis = analyse(Functional(3, 4), torch.zeros(1, 1, 8, 8))
    conv1, conv2, flat, fc1 = analysis.groups
    assert (conv1.size, conv1.fan_in, conv1.fan_out) == (3, 9, 3 * 9)
    assert conv1.parameters == 9 + 1 + 27  # its weights, its bias, its columns in conv2
    assert conv1.macs == 9 * 36 + 27 * 9
    assert (conv2.fan_in, conv2.fan_out, conv2.parameters) == (27, 9 * 4, 27 + 1 + 36)
    assert (flat.size, flat.fan_in, flat.fan_out, flat.parameters, flat.macs) == (27, 1, 4, 4, 4)
    assert (fc1.size, fc1.fan_in, fc1.fan_out, fc1.parameters, fc1.macs) == (4, 27, 2, 30, 29)


def test_count():
    cost = count(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4, 3, bias=False)),
        torch.zeros(5, 1, 4, 4),
    )
    assert (cost.parameters, cost.macs) == (18 + 2 + 24, 18 * 4 + 24)
