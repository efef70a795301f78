"""A student that has each of its teacher's units several times over: the solvable case of redundancy."""

from __future__ import annotations

import numpy as np

from bayesprune.errors import TheoryError
from bayesprune.theory.activation import Activation, Array
from bayesprune.theory.order import OrderParameters


def redundant(
    teacher: Array, teacher_readout: Array, copies: int, activation: Activation | str = "erf"
) -> OrderParameters:
    """A perfect student of K = z M units, z copies of each unit of the teacher, which share its readout.

    What long noiseless learning with trained second layers tends to ("denoising solution" of Goldt et al.
    2019). Unit n of the teacher is copied to the student's units n z … (n+1) z − 1.

    Args:
        teacher: (M, M), T.
        teacher_readout: (M,), v*.
        copies: z.
        activation: of both.

    Returns:
        Its order parameters; the error is 0.

    Raises:
        TheoryError: z is no whole number of at least 1, or T and v* do not fit.

    Example:
        >>> redundant(np.eye(2), np.array([4.0, 4.0]), copies=2).readout
        array([2., 2., 2., 2.])
    """
    if int(copies) != copies or copies < 1:
        raise TheoryError(f"copies={copies}: give a whole number, at least 1.")
    which = np.repeat(np.arange(len(teacher_readout)), copies)
    perfect = OrderParameters(teacher, teacher, teacher, teacher_readout, teacher_readout, activation)
    return OrderParameters(
        teacher[np.ix_(which, which)],
        teacher[which],
        teacher,
        perfect.readout[which] / copies,
        teacher_readout,
        activation,
    )
