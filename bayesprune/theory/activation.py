"""What the statistical mechanics of a committee needs to know of its activation function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Units = NDArray[np.intp]
Pairwise = Callable[[Array, Array, Array], Array]
"""(covariance of a and b, variance of a, variance of b) → an expectation, element by element."""


@dataclass(frozen=True)
class Activation:
    r"""An activation function g with its Gaussian integrals.

    For jointly normal (a, b) of mean zero, covariance c and variances A, B the three integrals are

    .. math:: \mathrm{overlap} = E[g(a)g(b)], \quad \mathrm{slopes} = E[g'(a)g'(b)],
              \quad \mathrm{curvature} = E[g''(a)g(b)].

    The last two follow from the first by Price's theorem (an identity for Gaussian expectations):
    :math:`\mathrm{slopes} = \partial\,\mathrm{overlap}/\partial c` and
    :math:`\mathrm{curvature} = 2\,\partial\,\mathrm{overlap}/\partial A`. Tests hold all three to numerical
    integration.

    Args:
        name: by which :func:`bayesprune.theory.activation_named` finds it.
        value: g, element by element.
        slope: g', element by element (almost everywhere).
        overlap: E[g(a)g(b)].
        slopes: E[g'(a)g'(b)].
        curvature: E[g''(a)g(b)]; with ReLU, g'' is Dirac's delta.
        lipschitz: the largest |g'|.
        tilts: E[g'(a)g'(b)h(z)] is ``slopes`` times an expectation of h under another Gaussian, whose
            covariance is C − C_s (1 + C_ss)⁻¹ C_sᵀ with s = (a, b). True of erf alone here; it is what gives
            the term of second order in the learning rate a closed form.
    """

    name: str
    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    overlap: Pairwise
    slopes: Pairwise
    curvature: Pairwise
    lipschitz: float
    tilts: bool = False
