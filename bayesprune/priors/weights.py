"""The prior of the weights that the gates leave on, and which guide they get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from bayesprune.errors import PriorError
from bayesprune.priors.checks import positive
from bayesprune.priors.naming import by_name
from bayesprune.structure.naming import check_names, check_order

Posterior = Literal["delta", "normal"]


@dataclass(frozen=True)
class NormalWeights:
    r"""Weights and biases w ~ N(0, scale²), with a point or a Gaussian posterior.

    With ``posterior='delta'`` the weights are a MAP point, and the prior is an L2 penalty w² / (2 scale²)
    nats on the *total* negative log-likelihood: for N rows that is a weight decay of 1 / (N · scale²) on the
    mean loss (6.7e-5 for the default and 60,000 rows). With ``'normal'`` they are a mean-field Gaussian.

    In any network these are the parameters that products sum with: weights and biases of linear maps, of
    convolutions (grouped ones too), attention's projections, bare parameters in a matrix product, and
    embedding tables; a shared one once. Scales and shifts of norms, positions, class tokens, and parameters
    that a weight is computed from have no prior: they are points without a penalty.

    Args:
        scale: standard deviation of the prior, > 0; or a table by parameter name or glob pattern.
        posterior: ``'delta'`` (MAP point) or ``'normal'`` (mean-field Gaussian).
        masked: the weights that make a unit (rows of a layer, columns of an embedding table) leave the ELBO
            where its gate is off, as in a spike-and-slab. A tied embedding's never leave it. With ``"both"``
            a weight is there only while both units are that it joins, so that it leaves with the unit that
            it makes and with the one that it reads: inputs pay for what reads them.
        relevance: every weight of a Gaussian posterior N(μ, σ²) has a prior N(0, s²) of its own, at the s of
            the most evidence, s² = μ² + σ² (type-II maximum likelihood: automatic relevance determination,
            MacKay 1994 and Neal 1996; with a posterior of weights Kharitonov, Molchanov & Vetrov 2018, arXiv
            1811.00596). A weight then costs ½ log(1 + μ²/σ²) nats, and one that is not needed nothing. The
            same divergence, but for a constant, has the improper hyper-prior p(s) ∝ 1/s. ``scale`` is then
            what ``'delta'`` would have, and stands for no weight.
        initial_scale: standard deviation that a Gaussian posterior starts with, > 0. The default is
            softplus(-6), as in the public code of Jantre, Bhattacharya & Maiti (arXiv 2108.11000).

    Raises:
        PriorError: a scale that is not a positive finite number, an unknown posterior, ``masked`` that is
            none, or ``relevance`` of points, of which no scale has a finite best.

    Example:
        >>> from bayesprune.priors import NormalWeights
        >>> NormalWeights(scale={"*.bias": 10.0, "*": 0.5}).scale_of("fc1.bias")
        10.0
    """

    scale: float | Mapping[str, float] = 0.5
    posterior: Posterior = "delta"
    masked: bool | Literal["both"] = False
    initial_scale: float = 0.0025
    relevance: bool = False

    def __post_init__(self) -> None:
        table = self.scale if isinstance(self.scale, Mapping) else {"scale": self.scale}
        settings = {**table, "initial_scale": self.initial_scale}
        wrong = [f"{name}={value!r}" for name, value in settings.items() if not positive(value)]
        if wrong or not table:
            raise PriorError(
                f"NormalWeights needs positive finite scales, and got {', '.join(wrong) or 'no scale'}."
            )
        if self.posterior not in get_args(Posterior):
            raise PriorError(f"NormalWeights has posterior 'delta' or 'normal', and got {self.posterior!r}.")
        if self.masked not in (True, False, "both"):
            raise PriorError(f"NormalWeights has masked=True, False or 'both', and got {self.masked!r}.")
        if self.relevance and self.posterior == "delta":
            raise PriorError(
                "NormalWeights(relevance=True) gives every weight the prior scale of the most evidence, "
                "which of points is their size: take posterior='normal'."
            )

    def scale_of(self, parameter: str) -> float:
        """Standard deviation of the prior of one parameter.

        Args:
            parameter: name in the network's ``state_dict``, such as ``'fc1.weight'``.

        Raises:
            PriorError: a table without an entry for it.
        """
        return by_name(self.scale, parameter, "scale") if isinstance(self.scale, Mapping) else self.scale

    def check_names(self, parameters: Sequence[str]) -> None:
        """Refuse scales for parameters that a network does not have.

        Args:
            parameters: names in the network's ``state_dict``.

        Raises:
            PriorError: an unknown name, with the nearest known one.
        """
        if isinstance(self.scale, Mapping):
            check_names("scale", self.scale, parameters, error=PriorError, kind="parameter")
            check_order("scale", list(self.scale), parameters, PriorError)

    def scaled(self, factor: float) -> NormalWeights:
        """The same prior with every standard deviation multiplied by a factor.

        Args:
            factor: positive.
        """
        if isinstance(self.scale, Mapping):
            return replace(self, scale={name: factor * value for name, value in self.scale.items()})
        return replace(self, scale=factor * self.scale)
