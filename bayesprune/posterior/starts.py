"""Several starts of one model, compared: by the probability of each mask, or by the ELBO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayesprune.errors import PosteriorError
from bayesprune.posterior.arviz import unwrap
from bayesprune.posterior.integrate import integrate_weights, what_of
from bayesprune.posterior.rows import check_rows
from bayesprune.posterior.value import Posterior
from bayesprune.rows import Source
from bayesprune.svi.mask_evidence import affordable, tensors_of, why_not_integrated
from bayesprune.svi.result import FitResult

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Starts:
    """Fits of one model from several starts.

    Attributes:
        fits: in the order in which they were given.
        elbo: (fits,), nats, of each at its end, over the training rows and draws of its guide. Weights that
            are points count by their prior density: only differences mean something.
        log_joint: (fits,), log p(z, y) of the mask that each has come to, nats up to a constant of all, the
            weights integrated out; NaN where that was not asked.
        why_elbo: why fits are compared by the ELBO; empty where they are by ``log_joint``.
    """

    fits: tuple[FitResult, ...] = field(repr=False)
    elbo: Array
    log_joint: Array
    why_elbo: str

    @property
    def scores(self) -> Array:
        """(fits,), nats, by which they are compared."""
        return self.elbo if self.why_elbo else self.log_joint

    @property
    def best(self) -> FitResult:
        """The fit with the highest score; the first of equals."""
        return self.fits[int(self.scores.argmax())]

    def __str__(self) -> str:
        """A line for each, the best first."""
        by = f"ELBO ({self.why_elbo})" if self.why_elbo else "log p(z, y), weights integrated out"
        order = np.argsort(-self.scores, kind="stable")
        lines = [f"compared by {by}; nats below the best:"]
        for number in order.tolist():
            below = self.scores.max() - self.scores[number]
            kept = ", ".join(f"{name} {count}" for name, count in self.fits[number].gated.kept().items())
            lines.append(f"  start {number}: {below:8.2f}   kept {kept}")
        return "\n".join(lines)


def compare_starts(
    results: Sequence[FitResult], rows: Source, *, draws: int = 100, by: str | None = None, seed: int = 0
) -> Starts:
    r"""Compare fits of one model that began elsewhere, and name the best.

    A fit ends in one mode of many, and a unit whose weights begin on the wrong side may be lost before they
    have crossed. So several starts are worth comparing where fits are cheap, by

    .. math:: \log p(z, y) = \log p(z) + \log \int p(y \mid w, z)\, p(w)\, dw

    of the mask that each has come to, where all weights can be integrated out in a matter of seconds
    (``integrate_weights``); else by the ELBO. The ELBO has no Occam factor of weights that are points, and so
    prefers larger networks than evidence does. Neither is a score on held-out rows, and none are needed.

    Args:
        results: of fits to the same rows under the same prior.
        rows: (inputs, targets), all training rows.
        draws: of each guide, for the ELBO.
        by: ``"evidence"`` or ``"elbo"``; None for evidence where it can be had.
        seed: of the draws.

    Returns:
        Both scores of each; ``print`` shows them, ``best`` is the fit.

    Raises:
        PosteriorError: fits of different networks, other rows than they were fitted to, or
            ``by="evidence"`` where there is none.

    Example:
        >>> import torch, bayesprune as bp
        >>> x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
        >>> def start(seed):
        ...     torch.manual_seed(seed)
        ...     network = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        ...     prior = bp.priors.BernoulliGates(bp.priors.Flattening(1.0))
        ...     noise = bp.Gaussian(rows=60, scale=1.0, learn_scale=False)
        ...     gated = bp.gate(network, x, prior=prior, likelihood=noise)
        ...     return bp.fit(gated, (x, x[:, :1]), epochs=300, seed=seed, progress=False)
        >>> compare_starts([start(seed) for seed in range(2)], (x, x[:, :1])).best.architecture
        [1]
    """
    posterior = Posterior.of(list(results))
    gated = posterior.fits[0].gated
    pair = check_rows(gated, rows)
    if len(pair[0]) != gated.likelihood.rows:
        raise PosteriorError(
            f"compare_starts weighs fits by all {gated.likelihood.rows} training rows, and got "
            f"{len(pair[0])}: give rows=(inputs, targets) that they were fitted to."
        )
    if by not in (None, "evidence", "elbo"):
        raise PosteriorError(f"by={by!r} must be 'evidence' or 'elbo', or left out.")
    why = (
        "as asked" if by == "elbo" else next((t for f in posterior.fits if (t := _why_not(f, pair, by))), "")
    )
    if why and by == "evidence":
        raise PosteriorError(f"compare_starts(by='evidence'): {why}. Take by='elbo'.")
    stats = unwrap(posterior.to_arviz(draws=draws, seed=seed, prior=0, rows=pair))["sample_stats"]
    elbo = np.asarray(stats["elbo"].mean("draw").values, dtype=np.float64)
    log_joint = np.full(len(posterior.fits), np.nan)
    if not why:
        for number, fit in enumerate(posterior.fits):
            mask = fit.gated.alive.cpu()[None].float()
            log_joint[number] = integrate_weights(fit.gated, pair, mask).log_joint[0]
    return Starts(posterior.fits, elbo, log_joint, why)


def _why_not(fit: FitResult, rows: Any, by: str | None) -> str:
    """Why the mask of a fit has no evidence to be compared by."""
    gated = fit.gated
    if missing := why_not_integrated(gated):
        return missing
    if len(tensors_of(gated)) < len(gated.weight_tensors()):
        return f"not all weights can be integrated out, only {what_of(gated)}"
    if fit.undecided:
        return f"{fit.undecided} gates are undecided"
    if by is None and not affordable(gated, len(rows[0])):
        return "integrating out the weights would take long"
    return ""
