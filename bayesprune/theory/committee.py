"""A committee machine: one hidden layer without biases, read by one linear output."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bayesprune.errors import TheoryError
from bayesprune.theory.activation import Activation, Array
from bayesprune.theory.named import activation_named


@dataclass(frozen=True)
class Committee:
    r"""A two-layer network on d inputs, in the scaling of statistical mechanics.

    .. math:: \varphi(x) = \sum_{i=1}^K v_i\, g\!\big(w_i \cdot x / \sqrt d\big), \qquad x \sim N(0, 1_d)

    With all v_i = 1 it is the soft committee machine.

    Args:
        weights: (units, inputs), the rows w_i, entries of order 1.
        readout: (units,), v.
        activation: g, or its name.

    Raises:
        TheoryError: shapes do not fit, or a number is not finite; every problem is named.

    Example:
        >>> net = Committee(np.eye(2, 4), np.ones(2), "relu")
        >>> net(np.array([[4.0, -2.0, 0.0, 0.0]]))
        array([2.])
    """

    weights: Array
    readout: Array
    activation: Activation

    def __init__(self, weights: Array, readout: Array, activation: Activation | str = "erf") -> None:
        rows, outer = np.asarray(weights, np.float64), np.asarray(readout, np.float64)
        problems = []
        if rows.ndim != 2 or 0 in rows.shape:
            problems.append(f"weights has shape {rows.shape}: give (units, inputs), each at least 1")
        elif outer.shape != rows.shape[:1]:
            problems.append(f"readout has shape {outer.shape} for {len(rows)} units: give one number a unit")
        problems += [
            f"{name} holds numbers that are not finite"
            for name, array in (("weights", rows), ("readout", outer))
            if not np.isfinite(array).all()
        ]
        if problems:
            raise TheoryError(f"Committee: {'; '.join(problems)}.")
        object.__setattr__(self, "weights", rows)
        object.__setattr__(self, "readout", outer)
        object.__setattr__(self, "activation", activation_named(activation))

    @property
    def units(self) -> int:
        """K, hidden units."""
        return int(self.weights.shape[0])

    @property
    def inputs(self) -> int:
        """d, inputs."""
        return int(self.weights.shape[1])

    @property
    def parameters(self) -> int:
        """Weights that are not zero, and a readout for every unit that has one.

        A unit without weights counts nothing: erf and ReLU of 0 are 0, so that it can be removed.
        """
        alive = self.weights.any(1) & (self.readout != 0)
        return int(np.count_nonzero(self.weights[alive]) + alive.sum())

    def fields(self, x: Array) -> Array:
        """Local fields λ_i = w_i · x / √d.

        Args:
            x: (rows, inputs).

        Returns:
            (rows, units).

        Raises:
            TheoryError: x has another shape.
        """
        if np.ndim(x) != 2 or np.shape(x)[1] != self.inputs:
            raise TheoryError(f"Inputs have shape {np.shape(x)}: give (rows, {self.inputs}).")
        return np.asarray(x @ self.weights.T / np.sqrt(self.inputs))

    def __call__(self, x: Array) -> Array:
        """Outputs.

        Args:
            x: (rows, inputs).

        Returns:
            (rows,).
        """
        return np.asarray(self.activation.value(self.fields(x)) @ self.readout)

    def with_readout(self, readout: Array) -> Committee:
        """The same first layer under another second one; units whose readout is 0 are as good as removed.

        Args:
            readout: (units,).
        """
        return replace(self, readout=readout)


def draw_committee(
    units: int,
    inputs: int,
    rng: np.random.Generator,
    readout: float | Array = 1.0,
    activation: Activation | str = "erf",
    scale: float = 1.0,
) -> Committee:
    """A committee with independent normal weights.

    Args:
        units: K.
        inputs: d.
        rng: of the weights.
        readout: one number for all units, or (units,).
        activation: g, or its name.
        scale: standard deviation of the weights; Q_ii is scale² in expectation.

    Returns:
        The committee.

    Raises:
        TheoryError: shapes do not fit.
    """
    weights = scale * rng.standard_normal((units, inputs))
    outer = np.broadcast_to(np.asarray(readout, np.float64), units) if np.ndim(readout) == 0 else readout
    return Committee(weights, np.array(outer), activation)
