"""Order parameters: the overlaps of a student and its teacher, all that their error depends on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesprune.errors import TheoryError
from bayesprune.theory.activation import Activation, Array, Units
from bayesprune.theory.committee import Committee
from bayesprune.theory.named import activation_named


@dataclass(frozen=True)
class OrderParameters:
    r"""Overlaps of K student vectors w_i and M teacher vectors B_n, and both second layers.

    .. math:: Q = W W^\top / d, \qquad R = W B^\top / d, \qquad T = B B^\top / d

    They are the covariances of the local fields λ = W x / √d and ρ = B x / √d for x ~ N(0, 1).

    Args:
        Q: (K, K), student with student.
        R: (K, M), student with teacher.
        T: (M, M), teacher with teacher.
        readout: (K,), the student's second layer v.
        teacher_readout: (M,), the teacher's, v*.
        activation: of both, or its name.

    Raises:
        TheoryError: shapes do not fit, Q or T is not symmetric, or a number is not finite.

    Example:
        >>> one = np.ones((1, 1))
        >>> OrderParameters(one, 0.5 * one, one, np.ones(1), np.ones(1)).fields
        array([[1. , 0.5],
               [0.5, 1. ]])
    """

    Q: Array
    R: Array
    T: Array
    readout: Array
    teacher_readout: Array
    activation: Activation

    def __init__(
        self,
        Q: Array,
        R: Array,
        T: Array,
        readout: Array,
        teacher_readout: Array,
        activation: Activation | str = "erf",
    ) -> None:
        found = {"Q": Q, "R": R, "T": T, "readout": readout, "teacher_readout": teacher_readout}
        arrays = {name: np.asarray(value, np.float64) for name, value in found.items()}
        _check(arrays)
        for name, array in arrays.items():
            object.__setattr__(self, name, array)
        object.__setattr__(self, "activation", activation_named(activation))

    @property
    def units(self) -> int:
        """K, the student's hidden units."""
        return len(self.readout)

    @property
    def fields(self) -> Array:
        """(K + M, K + M), the covariance of all local fields, the student's first."""
        return np.block([[self.Q, self.R], [self.R.T, self.T]])

    @property
    def contrast(self) -> Array:
        """(K + M,), (v, −v*): student minus teacher is this, times the activations of all units."""
        return np.concatenate([self.readout, -self.teacher_readout])

    def with_readout(self, readout: Array) -> OrderParameters:
        """The same overlaps under another second layer.

        Args:
            readout: (K,).
        """
        return OrderParameters(self.Q, self.R, self.T, readout, self.teacher_readout, self.activation)

    def with_student(self, Q: Array, R: Array) -> OrderParameters:
        """Another student's overlaps with the same teacher, and the same second layers.

        Args:
            Q: (K, K).
            R: (K, M).
        """
        return OrderParameters(Q, R, self.T, self.readout, self.teacher_readout, self.activation)

    def keep(self, units: Units | list[int]) -> OrderParameters:
        """The student with these units alone: rows and columns of Q, rows of R, entries of v.

        Args:
            units: (k,), whole numbers below K.

        Raises:
            TheoryError: a unit is not one of the student's, or named twice.
        """
        index = np.asarray(units, np.intp)
        if (
            index.ndim != 1
            or len({*index.tolist()}) != index.size
            or not np.isin(index, range(self.units)).all()
        ):
            raise TheoryError(
                f"Units {index.tolist()} cannot be kept: give different numbers from 0 to {self.units - 1}."
            )
        return OrderParameters(
            self.Q[np.ix_(index, index)],
            self.R[index],
            self.T,
            self.readout[index],
            self.teacher_readout,
            self.activation,
        )


def order_parameters(student: Committee, teacher: Committee) -> OrderParameters:
    """Overlaps of a student and a teacher.

    Args:
        student: of K units.
        teacher: of M units, on the same inputs and with the same activation.

    Returns:
        Q, R, T and both second layers.

    Raises:
        TheoryError: inputs or activations differ.
    """
    problems = []
    if student.inputs != teacher.inputs:
        problems.append(
            f"the student has {student.inputs} inputs and the teacher {teacher.inputs}: give them the same"
        )
    if student.activation.name != teacher.activation.name:
        names = f"{student.activation.name} and {teacher.activation.name}"
        problems.append(f"their activations are {names}: closed forms are of one activation for both")
    if problems:
        raise TheoryError(f"Student and teacher do not fit together: {'; '.join(problems)}.")
    d = student.inputs
    return OrderParameters(
        student.weights @ student.weights.T / d,
        student.weights @ teacher.weights.T / d,
        teacher.weights @ teacher.weights.T / d,
        student.readout,
        teacher.readout,
        student.activation,
    )


def _check(arrays: dict[str, Array]) -> None:
    sizes = {"K": arrays["readout"].size, "M": arrays["teacher_readout"].size}
    letters = {"Q": "KK", "R": "KM", "T": "MM", "readout": "K", "teacher_readout": "M"}
    problems = []
    for name, axes in letters.items():
        wanted = tuple(sizes[axis] for axis in axes)
        if arrays[name].shape != wanted:
            problems.append(f"{name} has shape {arrays[name].shape}, not ({', '.join(axes)}) = {wanted}")
        elif not np.isfinite(arrays[name]).all():
            problems.append(f"{name} holds numbers that are not finite")
        elif name in "QT" and np.abs(arrays[name] - arrays[name].T).max() > 1e-6 * np.abs(arrays[name]).max():
            problems.append(f"{name} is not symmetric")
    if problems:
        raise TheoryError(
            f"Order parameters (K and M are the lengths of the readouts): {'; '.join(problems)}."
        )
