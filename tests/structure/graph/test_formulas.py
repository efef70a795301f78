"""Operations over units under gates, where derivatives are conventions: ties, constants, nothing open."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bayesprune.structure.graph.rules.gated_formulas
from bayesprune.structure.graph.rules.gated_reduction import WEIGHTED
from bayesprune.structure.graph.rules.gates import UnitGates, WeightedNorm
from tests.kinks import OffKinks

PLAIN: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, Any]]] = {
    "aten.mean": (lambda x: x.mean(1), {"dim": [1]}),
    "aten.var": (lambda x: x.var(1), {"dim": [1]}),
    "aten.std": (lambda x: x.std(1), {"dim": [1]}),
    "aten.amax": (lambda x: x.amax(1), {"dim": [1]}),
    "aten.amin": (lambda x: x.amin(1), {"dim": [1]}),
    "aten.max": (lambda x: x.max(1)[0], {"dim": 1}),
    "aten.min": (lambda x: x.min(1)[0], {"dim": 1}),
    "aten.softmax": (lambda x: x.softmax(1), {"dim": 1}),
    "aten.log_softmax": (lambda x: x.log_softmax(1), {"dim": 1}),
    "aten.logsumexp": (lambda x: x.logsumexp(1), {"dim": [1]}),
}
VALUES = {
    "apart": [0.3, -1.0, 2.0, 0.7, 1.1],
    "largest twice": [2.0, -1.0, 2.0, 0.7, 1.1],
    "least twice": [0.3, -1.0, 2.0, -1.0, 1.1],
    "all equal": [0.75] * 5,
    "all zero": [0.0] * 5,
    "closed one beyond": [0.3, -1.0, 2.0, 0.7, 9.0],
    "closed one below": [0.3, -1.0, 2.0, 0.7, -9.0],
    "far apart": [-700.0, 700.0, 0.0, 0.7, 1.1],
}
OPEN = {
    "all open": [1.0] * 5,
    "last closed": [1.0, 1.0, 1.0, 1.0, 0.0],
    "two closed": [1.0, 1.0, 0.0, 1.0, 0.0],
}
double = torch.float64


def weighted(name: str, x: Tensor, z: Tensor) -> Tensor:
    result = WEIGHTED[name](x, z, dict(PLAIN[name][1]))
    return result[0] if isinstance(result, tuple) else result


def total(y: Tensor) -> Tensor:
    """A number in which every entry counts differently."""
    return (y * torch.linspace(1, 2, y.numel(), dtype=y.dtype)).sum()


@pytest.mark.parametrize("gates", OPEN)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("name", PLAIN)
def test_values_and_slopes_are_those_of_the_operation_over_the_open_units_alone(name, values, gates) -> None:
    x = torch.tensor([VALUES[values]], dtype=double, requires_grad=True)
    z = torch.tensor([OPEN[gates]], dtype=double, requires_grad=True)
    alone = x.detach()[:, z[0] > 0].requires_grad_()
    with OffKinks():
        y, expected = weighted(name, x, z), PLAIN[name][0](alone)
        y = y[:, z[0] > 0] if y.ndim == 2 else y
        slope, in_gates = torch.autograd.grad(total(y), (x, z))
    (known,) = torch.autograd.grad(total(expected), alone)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(slope[:, z[0] > 0], known)
    assert not slope[:, z[0] == 0].any()
    assert in_gates.isfinite().all()


@pytest.mark.parametrize("name", ["aten.softmax", "aten.logsumexp", "aten.var", "aten.mean"])
def test_slopes_in_the_gates_are_those_of_finite_differences(name) -> None:
    """With the largest unit, at which the exponentials are shifted, among them."""
    x = torch.tensor([VALUES["apart"]], dtype=double)
    z = torch.tensor([[1.0, 1.0, 1.0, 0.0, 1.0]], dtype=double, requires_grad=True)
    with OffKinks():
        (slope,) = torch.autograd.grad(total(weighted(name, x, z)), z)
    for unit in range(5):
        step = torch.zeros_like(z)
        step[0, unit] = 1e-6
        with torch.no_grad():  # forward, as a gate below zero means nothing, and twice, to the second order
            near, far = (total(weighted(name, x, z + k * step)) for k in (1, 2))
            difference = (4 * near - far - 3 * total(weighted(name, x, z))) / 2e-6
        assert float(difference) == pytest.approx(float(slope[0, unit]), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name", ["aten.mean", "aten.softmax", "aten.log_softmax", "aten.logsumexp", "aten.amax"]
)
def test_slopes_stay_in_bounds_where_every_unit_is_closed(name, dtype) -> None:
    x = torch.tensor([[3.0, -1.0, 200.0]], dtype=dtype, requires_grad=True)
    z = torch.zeros(1, 3, dtype=dtype, requires_grad=True)
    slopes = torch.autograd.grad(total(weighted(name, x, z)), (x, z))
    assert all(slope.abs().max() <= 400 for slope in slopes)


def test_a_mean_of_nothing_is_zero_and_its_slopes_are_what_opening_one_unit_does() -> None:
    x, z = torch.tensor([[3.0, -1.0, 2.0]]), torch.zeros(1, 3, requires_grad=True)
    mean = weighted("aten.mean", x, z)
    (slope,) = torch.autograd.grad(mean.sum(), z)
    opened = torch.stack([weighted("aten.mean", x, torch.eye(3)[u : u + 1]) for u in range(3)], 1)
    assert mean.item() == 0.0
    torch.testing.assert_close(slope, opened - mean)


@pytest.mark.parametrize("centred", [True, False])
def test_a_norm_of_nothing_has_finite_slopes(centred) -> None:
    norm = WeightedNorm(UnitGates(torch.arange(3), 1, 0, 1, 1), centred, 1e-5)
    x, gates = torch.tensor([[3.0, -1.0, 2.0]], requires_grad=True), torch.zeros(4, requires_grad=True)
    y = norm(x, None, None, gates)
    slopes = torch.autograd.grad(y[0, 0], (x, gates))
    assert all(slope.isfinite().all() for slope in slopes)
    assert slopes[1].abs().max() < 1e9
    assert bayesprune.structure.graph.rules.gated_formulas  # registers what WEIGHTED holds
