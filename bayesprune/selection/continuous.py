"""Rules for continuous gates: the signal-to-noise ratio, and Bayesian model reduction of log-normal ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from bayesprune.errors import SelectionError
from bayesprune.priors import ContinuousGuide, LogNormalGuide
from bayesprune.priors.bmrs import MANTISSA, normal_reduction, uniform_reduction
from bayesprune.selection.inclusion import above
from bayesprune.selection.masks import Masks, Scores
from bayesprune.selection.rule import Scope, Scored
from bayesprune.selection.subject import Subject


@dataclass(frozen=True, eq=False)
class SignalToNoise(Scored):
    r"""The order of E[z_u]²/Var[z_u], of continuous gates that are not decided.

    The rule of Neklyudov, Molchanov, Ashukha & Vetrov (arXiv 1705.07283), and of Dai, Zhu, Guo & Wipf (arXiv
    1802.10399) where gates are Gaussian. Scores are logarithms. Its own answer is a ratio E/√Var > 1.
    Groups whose gates are not continuous stay whole.
    """

    scope: Scope = field(default="global", init=False, repr=False)

    @torch.no_grad()
    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """group → (size,), log E[z]²/Var[z].

        Raises:
            SelectionError: there are no continuous gates, or they are decided; or a family that does not know
                its variance.
        """
        found: Scores = {}
        for name, q in _live(subject, self.name).items():
            posterior = q.posterior()
            try:
                mean, variance = posterior.mean.double(), posterior.variance.double()
            except NotImplementedError:
                raise SelectionError(
                    f"{self.name}: gates of group {name!r} are {type(posterior).__name__}, which says no "
                    "variance: take InclusionProb(), the order of the family's own rule."
                ) from None
            tiny = torch.finfo(torch.double).tiny
            found[name] = (mean.square().clamp_min(tiny).log() - variance.clamp_min(tiny).log()).cpu()
        return found

    def masks(self, subject: Subject, seed: int = 0) -> Masks:
        """Units whose ratio is above one; the best of every group at least."""
        return above(subject, _whole(subject, self.scores(subject)), 0.0)


@dataclass(frozen=True, eq=False)
class LogNormalReduction(Scored):
    r"""Bayesian model reduction of log-normal gates: a unit goes where the evidence prefers it gone.

    .. math:: \Delta F_u = \log \mathbb{E}_{q}\Big[\frac{\tilde p(z_u)}{p(z_u)}\Big] \ge 0

    in closed form, without data and without a threshold; two reduced priors p̃, "normal" and "uniform", as
    ``bayesprune.priors.bmrs`` has them. After Wright, Igel & Selvan, "BMRS: Bayesian Model Reduction for
    Structured Pruning" (arXiv 2406.01345). Groups whose gates are not log-normal stay whole.

    Attributes:
        form: "normal" (BMRS_N), a point at e⁻²⁰, or "uniform" (BMRS_U), what float32 loses beside one.
        bits: of the second: a factor below 2^-bits counts as none.
        line: nats of evidence that a unit needs to stay.

    Raises:
        SelectionError: another form, or a number out of range.
    """

    form: Literal["normal", "uniform"] = "normal"
    bits: float = 8.0
    line: float = 0.0
    scope: Scope = field(default="global", init=False, repr=False)

    def __post_init__(self) -> None:
        if self.form not in ("normal", "uniform"):
            raise SelectionError(f"{self.name}: form={self.form!r} must be 'normal' or 'uniform'.")
        if not 0 < self.bits < MANTISSA:
            raise SelectionError(f"{self.name}: bits={self.bits!r} must lie between 0 and {MANTISSA}.")
        if not math.isfinite(self.line):
            raise SelectionError(f"{self.name}: line={self.line!r} must be a finite number of nats.")

    @torch.no_grad()
    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """group → (size,), −ΔF, nats of evidence for the unit.

        Raises:
            SelectionError: no group has log-normal gates that are not decided.
        """
        found: Scores = {}
        for name, q in _live(subject, self.name).items():
            if isinstance(q, LogNormalGuide):
                loc, scale = q.loc.cpu(), q.scale.cpu()
                reduced = (
                    normal_reduction(loc, scale)
                    if self.form == "normal"
                    else uniform_reduction(loc, scale, self.bits)
                )
                found[name] = -reduced
        if not found:
            raise SelectionError(
                f"{self.name} reads log-normal gates, and this posterior has none: gate with bp.priors."
                "LogNormalGates(), or take SignalToNoise()."
            )
        return found

    def masks(self, subject: Subject, seed: int = 0) -> Masks:
        """Units with evidence for them; the best of every group at least."""
        return above(subject, _whole(subject, self.scores(subject)), self.line)


def _live(subject: Subject, rule: str) -> Mapping[str, ContinuousGuide]:
    """Group → guide of its gates.

    Raises:
        SelectionError: there is none.
    """
    gated = subject.posterior
    if subject.continuous:
        return subject.continuous
    if gated.continuous.priors:
        raise SelectionError(
            f"{rule} reads guides of continuous gates, and those of this fit are decided: give the model as "
            "it was before, result.at_decision, or fit with decide=False."
        )
    raise SelectionError(
        f"{rule} reads guides of continuous gates, and this posterior has gates that are on or off: gate "
        "with bp.priors.GaussianGates() or LogNormalGates(), or take InclusionProb()."
    )


def _whole(subject: Subject, scores: Scores) -> Scores:
    """With the groups that have no scores, which stay whole."""
    left = {g.name: torch.full((g.size,), torch.inf, dtype=torch.double) for g in subject.groups}
    return {**left, **scores}
