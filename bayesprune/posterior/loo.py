r"""Leave-one-out cross-validation from draws of a guide, weighed so that they stand for the posterior.

.. math:: \mathrm{elpd}_i = \log p(y_i \mid y_{-i})
          \approx \log \frac{\sum_s r_s^{(i)}\, p(y_i \mid z_s, w_s)}{\sum_s r_s^{(i)}}, \qquad
          r_s^{(i)} = \frac{p(y, z_s, w_s)}{q(z_s, w_s)}\, \frac{1}{p(y_i \mid z_s, w_s)}

with the largest ratios smoothed (PSIS). Without the first factor it would be leave-one-out of the guide, as
if its draws were the posterior's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.posterior.arviz import pareto_k, smoothed
from bayesprune.posterior.diagnose.apart import told_apart
from bayesprune.posterior.diagnose.faithful import tail_limit
from bayesprune.posterior.value import Posterior
from bayesprune.posterior.weighed import Weighed, all_training_rows, weighed
from bayesprune.ranges import check_seed, is_whole
from bayesprune.rows import Source
from bayesprune.svi.result import FitResult

Array = npt.NDArray[np.float64]
EVERY = "every row, the left-out one too"


@dataclass(frozen=True, eq=False)
class Loo:
    """Leave-one-out predictive densities of one fit.

    Attributes:
        elpd: (rows,), log p(y_i | the other rows), nats.
        lpd: (rows,), log p(y_i | all rows), nats.
        pareto_k: (rows,), k̂ of the weights that leave row i out; NaN where no tail can be fitted.
        guide_k: k̂ of the weights that make posterior draws of the guide's, with all rows.
        limit: of k̂, min(1 − 1/log₁₀ S, 0.7) for S draws, as ArviZ has it.
        saw: what the draws are conditional on and was learnt from every row, the left-out one too.
        points: numbers among it, of the network and the likelihood, which were fitted. Each makes elpd_loo
            optimistic by up to a nat or so, as in Akaike's criterion (Stone 1977).
        corrected: whether draws were weighed by p(y, z, w) / q(z, w).
    """

    elpd: Array
    lpd: Array
    pareto_k: Array
    guide_k: float
    limit: float
    saw: tuple[str, ...]
    points: int
    corrected: bool

    @property
    def elpd_loo(self) -> float:
        """Sum over rows, nats."""
        return float(self.elpd.sum())

    @property
    def se(self) -> float:
        """Standard error of it over data sets of as many rows, nats."""
        return error_of_sum(self.elpd)

    @property
    def p_loo(self) -> float:
        """Effective number of parameters: what rows say of themselves beyond what the others do, nats."""
        return float((self.lpd - self.elpd).sum())

    @property
    def bad(self) -> int:
        """Rows of k̂ above the limit, whose elpd is not to be believed."""
        return int((self.pareto_k > self.limit).sum())

    @property
    def optimistic(self) -> bool:
        """Whether numbers are given that were fitted to the row left out, too."""
        return self.points > 0

    def __str__(self) -> str:
        told = [
            f"elpd_loo {self.elpd_loo:.1f} ± {self.se:.1f}, p_loo {self.p_loo:.1f}, {len(self.elpd)} rows",
            f"k̂ above {self.limit:.2f}: {self.bad}; k̂ of the guide {self.guide_k:.2f}",
        ]
        if self.saw:
            told.append(f"given {'; '.join(self.saw)}: learnt from {EVERY}")
        return "\n".join(told)


def loo(
    result: FitResult | GatedModel,
    rows: Source,
    *,
    draws: int = 1000,
    at: str = "end",
    corrected: bool = True,
    seed: int = 0,
) -> Loo:
    """Leave-one-out cross-validation of one fit, without fitting again.

    Draws come from the fit's guide, and each weighs as the posterior has it: log p(y, z, w) − log q(z, w)
    besides − log p(y_i | z, w), the importance ratios smoothed by ArviZ's PSIS (Magnusson, Andersen, Jonasson
    & Vehtari 2019, arXiv 1904.10679; Vehtari, Gelman & Gabry 2017, arXiv 1507.04544). The numbers ``elpd``
    and ``pareto_k`` are those of ``arviz_stats.loo_approximate_posterior``; ``lpd``, and with it ``p_loo``,
    weighs the draws too, where ArviZ's takes their plain mean. A sampler's draws are the posterior's already.

    Nothing here undoes what points have learnt. Weights that are points saw row i, and so did a mask that was
    decided: elpd is then conditional on them, and near the training rows' log-likelihood. Let weights have a
    posterior (``NormalWeights(posterior="normal")``, ``Recipe(compact_weights="normal")``), or compare by
    rows held out.

    Args:
        result: of a fit, or a gated model.
        rows: (inputs, targets), all training rows; a forward pass over them for each draw.
        draws: of the guide.
        at: ``"end"``, or ``"decision"`` for gates and weights as they were before gates were decided.
        corrected: False takes the guide's draws as they are, as ``az.loo`` would.
        seed: of the draws.

    Returns:
        Row by row; ``print`` shows the sums. Read ``bad`` and ``saw`` first.

    Raises:
        PosteriorError: several fits, other rows than it was fitted to, a number out of range, or a fit that
            learnt from a teacher besides.
        DataError: rows that were not trained on, or do not fit the model.

    Example:
        >>> import torch, bayesprune as bp
        >>> x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        >>> gated = bp.gate(
        ...     torch.nn.Sequential(torch.nn.Linear(3, 1)), x[:1], likelihood=bp.Gaussian(rows=60, scale=1.0),
        ...     prior=bp.priors.BernoulliGates(bp.priors.Flattening(2.0)),
        ... )
        >>> found = loo(gated, (x, x[:, :1]), draws=200)
        >>> found.elpd.shape, found.saw[0]
        ((60,), '5 fitted points (0.weight, 0.bias, log_scale)')
    """
    if isinstance(result, Sequence):
        raise PosteriorError("loo is of one fit; bp.posterior.compare puts several side by side.")
    if not is_whole(draws) or draws < 1:
        raise PosteriorError(f"draws={draws!r} must be a whole number, at least 1.")
    check_seed(seed, PosteriorError)
    posterior = Posterior.of(result, at)
    gated = posterior.fits[0].gated
    pair = all_training_rows(gated, rows, "loo")
    if missing := why_no_loo(gated):
        raise PosteriorError(f"loo: {missing}. Compare fits by rows held out.")
    told_apart(posterior.fits, pair, None)
    return loo_of(weighed(posterior, pair, draws, seed), corrected)


def error_of_sum(scores: Array) -> float:
    """Standard error of a sum of independent rows' scores, (rows,); NaN of a single row."""
    return float(np.sqrt(len(scores) * scores.var(ddof=1))) if len(scores) > 1 else float("nan")


def why_no_loo(gated: GatedModel) -> str:
    """Why rows cannot be left out one by one; empty if they can."""
    if gated.likelihood.plain is not gated.likelihood:
        return "a teacher has spoken of every row too, and leaving out its target alone leaves that in"
    return ""


def loo_of(drawn: Weighed, corrected: bool = True) -> Loo:
    """Leave-one-out densities of weighed draws.

    Args:
        drawn: of one fit.
        corrected: weigh draws by p / q.
    """
    ratio = drawn.log_ratio if corrected else np.zeros_like(drawn.log_ratio)
    draws, rows = drawn.by_row.shape
    elpd, k = np.empty(rows), np.empty(rows)
    overall, _ = smoothed(ratio)
    lpd = np.logaddexp.reduce(overall[:, None] + drawn.by_row.astype(np.float64), axis=0)
    for row in range(rows):
        nats = drawn.by_row[:, row].astype(np.float64)
        if np.isneginf(nats).any():  # a draw that only the row left out forbids: it would weigh infinitely
            elpd[row], k[row] = -np.inf, np.inf
            continue
        weights, k[row] = smoothed(ratio - nats)
        elpd[row] = np.logaddexp.reduce(weights + nats)
    limit = tail_limit(draws, draws)
    return Loo(elpd, np.asarray(lpd), k, pareto_k(drawn.log_ratio), limit, drawn.saw, drawn.points, corrected)
