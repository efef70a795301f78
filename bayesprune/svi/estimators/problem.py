"""What every gradient estimator is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from bayesprune.priors import Gates as Independent
from bayesprune.priors import LinkedGates
from bayesprune.svi.bits import random_words

Gates = dict[str, Tensor]
Factor = float | Tensor
"""What a loss was multiplied by before it was differentiated: a GradScaler's scale, one over some batches."""


class RowLoss(Protocol):
    """The negative log-likelihood of every row, as a function of gates and of the units' noise."""

    def __call__(self, gates: Mapping[str, Tensor], factors: Mapping[str, Tensor] | None = None) -> Tensor:
        """Run the network.

        Args:
            gates: group → gates of shape (rows or 1, units) or (draws, 1 or rows, units).
            factors: group → (rows, units), what units are multiplied by beside their gates; without any,
                groups that have noise get a fresh draw of it.

        Returns:
            (rows,) or (draws, rows), nats, differentiable in weights and gates.
        """
        ...


@dataclass(frozen=True)
class GateProblem:
    """One batch, seen as a function of the gates.

    Attributes:
        nll: the negative log-likelihood of every row under given gates.
        probs: (units,), q(z = 1) of the living units of all groups, one after the other.
        log_odds: (units,), the same as log-odds.
        units: group → number of living units, in order.
        rows: rows of the batch.
        generator: source of randomness on the device of ``probs``.
        unit_noise: group → standard deviation of the factor on its units, for the groups that have one.
        linked: group → q of its living gates, for the groups whose gates are not independent.
        drawn: group → what was drawn last of these: gates (rows, units) and signs (rows,).
    """

    nll: RowLoss
    probs: Tensor
    log_odds: Tensor
    units: Mapping[str, int]
    rows: int
    generator: torch.Generator | None = None
    unit_noise: Mapping[str, float] = field(default_factory=dict)
    linked: Mapping[str, LinkedGates] = field(default_factory=dict)
    drawn: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def split(self, flat: Tensor) -> Gates:
        """(..., units of all groups) → group → (..., units)."""
        return dict(zip(self.units, flat.split(list(self.units.values()), dim=-1), strict=True))

    def uniform(self) -> Tensor:
        """(rows, units), draws from [0, 1)."""
        shape = (self.rows, len(self.probs))
        return torch.rand(shape, generator=self.generator, dtype=self.probs.dtype, device=self.probs.device)

    def draw(self) -> Gates:
        """Group → (rows, units), one hard draw of every gate for every row, as numbers.

        Random bits are compared sixteen at a time with q(z = 1) · 2¹⁶, rounded at random to a whole number
        once a batch and unit. So every row's gates are independent and have their probabilities exactly, to
        the float's precision; only different rows share the rounding, by at most 2⁻¹⁶. Half the cost of
        ``torch.rand``. Gates that are linked are drawn one after the other, from numbers of their own.
        """
        gates = {name: self._opened(words, counts) for name, words, counts in self._words()}
        return self._with_linked(gates) if self.linked else gates

    def draw_with_noise(self) -> tuple[Gates, Gates]:
        """The same, and for groups with ``unit_noise`` the factors too, from the same random bits.

        A gate opens where its word w, uniform on 0 … 2¹⁶ − 1, lies below L = q(z = 1) · 2¹⁶; so for an open
        gate w is uniform on 0 … L − 1, and 1 + √3 σ (2 (w + ½) / L − 1) is uniform around one: its mean is
        exactly 1, its variance short of σ² by 1/L² of it. Only for the forward pass: the factor of a closed
        gate multiplies zero and means nothing, so slopes in the gates would be wrong.
        """
        gates, factors = {}, {}
        for name, words, counts in self._words():
            gates[name] = self._opened(words, counts)
            if name in self.unit_noise:
                half_width = 3.0**0.5 * self.unit_noise[name]
                factor = torch.empty_like(gates[name]).copy_(words).add_(2.0**15 + 0.5)
                factors[name] = factor.mul_(2 * half_width / counts.clamp_min(1.0)).add_(1.0 - half_width)
        return self._with_linked(gates) if self.linked else gates, factors

    def _with_linked(self, gates: Gates) -> Gates:
        """The other groups' gates too, in the groups' order."""
        device, generator = self.probs.device, self.generator
        for name, linked in self.linked.items():
            units = self.units[name]
            words = random_words(self.rows * units, device, generator)[: self.rows * units]
            dither = torch.empty_like(linked.probs).uniform_(generator=generator)
            uniform = words.view(self.rows, units).to(dither.dtype)
            uniform.add_(dither + 2.0**15).mul_(2.0**-16)
            most = 2 ** len(linked.raw_loading)
            signs = torch.randint(most, (self.rows,), generator=generator, device=device)
            gates[name] = linked.draw(uniform, signs)
            self.drawn[name] = gates[name], signs
        return {name: gates[name] for name in self.units}

    # ---- slopes

    def gradient(self, slopes: Sequence[Tensor], drawn: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        """What an estimator returns, from the slopes of a batch's draws.

        A link's slope is that of its gate, times what the gate that it looks at stands above its mean.

        Args:
            slopes: of each group, (rows, units), estimates of ∂(mean loss)/∂P(z = 1), each row's own.
            drawn: what was drawn of the linked groups: ``self.drawn`` after that draw.

        Returns:
            (units of all groups,), then for each linked group (lags · units,) and (rank · units,).
        """
        parts = [slope.sum(0) for slope in slopes]
        by_group = dict(zip(self.units, slopes, strict=True)) if self.linked else {}
        for name, linked in self.linked.items():
            gates, signs = drawn[name]
            above, slope = gates.detach() - linked.probs, by_group[name]
            for number in range(len(linked.before.lags)):
                parts.append(linked.before.look(above, number).mul_(slope).sum(0))
            for number in range(len(linked.raw_loading)):
                parts.append((2.0 * (signs >> number & 1).to(slope) - 1) @ slope)
        return torch.cat(parts)

    def leaves(self) -> list[Tensor]:
        """What q hangs on, to be differentiated: probabilities, then each group's coupling and loading."""
        found = [self.probs.detach().clone().requires_grad_()]
        for linked in self.linked.values():
            for part in (linked.raw_coupling, linked.raw_loading):
                found.append(part.detach().clone().requires_grad_())
        return found

    def log_prob(self, gates: Tensor, leaves: Sequence[Tensor]) -> Tensor:
        """(...), nats, log q of gates as a function of the leaves.

        Args:
            gates: (..., units of all groups).
            leaves: of ``leaves``.
        """
        own, total, links = self.split(leaves[0]), gates.new_zeros(gates.shape[:-1]), iter(leaves[1:])
        for name, value in self.split(gates).items():
            if name in self.linked:
                coupling, loading = next(links), next(links)
                q: Any = LinkedGates(own[name], coupling, self.linked[name].before, loading, False)
            else:
                q = Independent(probs=own[name], validate_args=False)
            total = total + q.log_prob(value)
        return total

    def _words(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Group; (rows, units), random words; (units,), how many of the 2¹⁶ words open the gate."""
        plain = {name: units for name, units in self.units.items() if name not in self.linked}
        words = random_words(self.rows * sum(plain.values()), self.probs.device, self.generator)
        dither = torch.empty_like(self.probs).uniform_(generator=self.generator)
        counts = (self.probs * 2.0**16 + dither).floor_().clamp_(0.0, 2.0**16 - 1)
        start, first = 0, 0
        for name, units in self.units.items():
            if name in plain:
                block = words[start : start + self.rows * units].view(self.rows, units)
                yield name, block, counts[first : first + units]
                start += self.rows * units
            first += units

    def _opened(self, words: Tensor, counts: Tensor) -> Tensor:
        """(rows, units), 1 where a word is among those that open the gate, else 0."""
        gates = torch.empty(words.shape, dtype=counts.dtype, device=words.device)
        torch.lt(words, (counts - 2.0**15).to(torch.int16), out=gates)  # compares into floats in one pass
        return gates


@dataclass(frozen=True)
class Estimate:
    """One batch's answer: a loss that has yet to be differentiated, and what to read off afterwards.

    Attributes:
        nll: scalar, mean negative log-likelihood of a row under the drawn gates, nats, with its graph.
        gate_gradient: after ``factor · nll`` was differentiated with ``backward``, a function of ``factor``
            that returns (units,), an estimate of ∂E[mean NLL]/∂q(z=1) for the living units, and behind them
            those of links, where gates are linked. None when it was not asked for.
    """

    nll: Tensor
    gate_gradient: Callable[[Factor], Tensor] | None

    def differentiated(self) -> Tensor | None:
        """Run the backward pass: weights' gradients go to ``.grad``.

        Returns:
            (units,), the gates' gradient; None when it was not asked for.
        """
        backward(self.nll)
        return None if self.gate_gradient is None else self.gate_gradient(1.0)


class Estimator(Protocol):
    """Draws gates for one batch and runs its loss forward; backward is for the caller, who may scale it.

    One that weighs each row's draw by that row's loss says so by ``of_rows = True``: from a loss that is the
    same number for the whole batch it would get a slope that is too small by the number of rows.
    """

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """Estimate value and gradients.

        Args:
            problem: the batch.
            want_gates: False on steps that leave the gates alone, which saves the backward pass to the
                inputs.

        Returns:
            The estimate. Its loss is differentiated once, and weights' gradients go to ``.grad``.
        """
        ...


def gradient_of(leaf: Tensor, factor: Factor) -> Tensor:
    """∂(mean loss)/∂leaf, after ``factor`` times the loss was differentiated.

    Args:
        leaf: any shape; zeros are returned where the loss does not hang on it.
        factor: of the loss.
    """
    if leaf.grad is None:
        return torch.zeros_like(leaf)
    return leaf.grad if isinstance(factor, float) and factor == 1.0 else leaf.grad / factor


def backward(loss: Tensor) -> None:
    """Gradients into ``.grad`` of whatever is learnt; with weights frozen and gates at rest, nothing is.

    Args:
        loss: scalar.
    """
    if loss.requires_grad:
        loss.backward()
