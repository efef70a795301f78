"""The frame of a network's outputs: a location and a unit, so that it can learn in standard deviations.

outputs = location + unit · (what the layers compute). Priors of weights, and the optimiser's steps, are then
those of targets of mean 0 and standard deviation 1, whatever the targets' own unit. What ships has no frame:
it is folded into the last layer, W ← unit · W, b ← unit · b + location.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayesprune.rows.call import Inputs, run
from bayesprune.structure.copying import copy_of
from bayesprune.structure.running import drawing_alike


@dataclass(frozen=True)
class Head:
    """The last layer of a network: outputs are linear in it.

    Attributes:
        weight: the name of its weight, (columns, ...).
        bias: the name of its bias, (columns,), or None.
    """

    weight: str
    bias: str | None


class Framed(nn.Module):
    """A network whose outputs may have a frame. Without one nothing is computed, and nothing is saved."""

    _frame_location: Tensor | None
    _frame_unit: Tensor | None
    _frame_head: Head | None

    def _no_frame(self) -> None:
        """Begin without a frame; to be called once the module is there."""
        self.register_buffer("_frame_location", None)
        self.register_buffer("_frame_unit", None)
        object.__setattr__(self, "_frame_head", None)

    def frame_(self, head: Head, location: Tensor, unit: Tensor, *, keep: bool) -> None:
        """Let the outputs be location + unit · (what the layers compute), from now on.

        Args:
            head: of this network, as ``find_head`` finds it.
            location: (columns,), in the unit of the targets; zeros where the head has no bias.
            unit: scalar, the same unit, positive.
            keep: the network goes on computing what it did (its head is divided by the unit); else the head
                stays what it is, and its numbers mean standard deviations.
        """
        weight = self.get_parameter(head.weight)
        if keep:
            rescale_(self, head, -location / unit, 1 / unit)
        self._frame_location = location.to(weight)
        self._frame_unit = unit.to(weight)
        object.__setattr__(self, "_frame_head", head)

    @property
    def frame(self) -> Head | None:
        """The layer that takes the frame up; None where the network has no frame."""
        return self._frame_head

    def framed(self, outputs: Tensor) -> Tensor:
        """(..., columns), outputs of the layers → outputs in the unit of the targets."""
        if self._frame_unit is None or self._frame_location is None:
            return outputs
        return torch.addcmul(self._frame_location, outputs, self._frame_unit)

    def take_frame_(self, other: Framed) -> None:
        """Have the frame of another network of the same layers."""
        for name in ("_frame_location", "_frame_unit"):
            value = getattr(other, name)
            setattr(self, name, None if value is None else value.clone())
        object.__setattr__(self, "_frame_head", other._frame_head)

    def folded_(self, plain: nn.Module) -> nn.Module:
        """A plain network of these layers, with the frame folded into its last one.

        Args:
            plain: changed in place.
        """
        if self._frame_head is not None:
            assert self._frame_location is not None and self._frame_unit is not None
            rescale_(plain, self._frame_head, self._frame_location, self._frame_unit)
        return plain


@torch.no_grad()
def rescale_(network: nn.Module, head: Head, location: Tensor, unit: Tensor) -> None:
    """Multiply a network's outputs by a unit and add a location, by its last layer alone.

    Args:
        network: changed in place.
        head: its last layer.
        location: (columns,).
        unit: scalar.
    """
    weight = network.get_parameter(head.weight)
    weight.copy_(weight.double() * unit.double())
    if head.bias is not None:
        bias = network.get_parameter(head.bias)
        bias.copy_(bias.double() * unit.double() + location.double())


def find_head(plain: nn.Module, x: Inputs) -> Head | None:
    """The layer that a network ends in, if its outputs are linear in it; found by trying.

    Args:
        plain: the network, without a frame; left alone.
        x: (rows, ...), at least two rows that it accepts.

    Returns:
        The last layer of which all this holds: it makes the columns of the outputs, its parameters are
        trained, and multiplying it multiplies the outputs, in training and in evaluation. None where there
        is none, as behind a softplus, or where two layers are added.
    """
    parameters = dict(plain.named_parameters())
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = run(copy_of(plain).eval(), x)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        return None
    for name, weight in reversed(parameters.items()):
        if not name.endswith("weight") or weight.ndim < 2 or len(weight) != outputs.shape[1]:
            continue
        bias = name.removesuffix("weight") + "bias"
        head = Head(name, bias if bias in parameters else None)
        trained = all(parameters[n].requires_grad for n in (head.weight, head.bias) if n)
        if trained and all(_is_linear_in(plain, head, x, training) for training in (False, True)):
            return head
    return None


def _is_linear_in(plain: nn.Module, head: Head, x: Inputs, training: bool) -> bool:
    columns = len(plain.get_parameter(head.weight))
    unit, location = (
        torch.tensor(3.0, dtype=torch.double, device=x.device),
        torch.zeros(columns, dtype=torch.double),
    )
    if head.bias is not None:
        location = torch.linspace(0.5, 1.5, columns, dtype=torch.double)
    first, second = copy_of(plain).train(training), copy_of(plain).train(training)
    location, unit = location.to(x.device), unit.to(x.device)
    rescale_(second, head, location, unit)
    results = []
    for network in (first, second):
        with torch.no_grad(), drawing_alike():
            results.append(run(network, x).double())
    expected = location + unit * results[0]
    tolerance = 1e-4 * max(float(expected.abs().max()), 1e-30)
    return torch.allclose(results[1], expected, rtol=0, atol=tolerance)
