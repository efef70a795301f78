"""The five answers side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.posterior.arviz import Groups, unwrap
from bayesprune.posterior.contents import check_contents
from bayesprune.posterior.diagnose.answer import Answer, Evidence
from bayesprune.posterior.diagnose.apart import told_apart
from bayesprune.posterior.diagnose.calibrated import calibrated
from bayesprune.posterior.diagnose.decided import decided
from bayesprune.posterior.diagnose.faithful import faithful
from bayesprune.posterior.diagnose.optimised import optimised
from bayesprune.posterior.diagnose.reproducible import reproducible
from bayesprune.posterior.rows import Rows, check_rows
from bayesprune.posterior.value import Posterior
from bayesprune.ranges import check_seed, is_whole
from bayesprune.rows import Source
from bayesprune.svi.result import FitResult
from bayesprune.svi.threads import threads_for, using_threads

WIDTH = 100


@dataclass(frozen=True)
class Diagnosis:
    """Five answers, each for itself: a mask can be decided and wrong, or right and not reproducible.

    Attributes:
        optimised: have ELBO and gates come to rest?
        decided: is every gate nearly certain?
        reproducible: do independent fits agree?
        faithful: is what the guide says true?
        calibrated: are its probabilities the exact ones?
    """

    optimised: Answer
    decided: Answer
    reproducible: Answer
    faithful: Answer
    calibrated: Answer

    @property
    def answers(self) -> tuple[Answer, ...]:
        """All five, in order."""
        return self.optimised, self.decided, self.reproducible, self.faithful, self.calibrated

    @property
    def problems(self) -> tuple[Answer, ...]:
        """Answers that are no; those that were not asked are none of them."""
        return tuple(answer for answer in self.answers if answer.verdict == "no")

    @property
    def converged(self) -> bool:
        """Whether the mask is at rest and decided, and nothing that could be asked speaks against it."""
        return self.optimised.verdict == self.decided.verdict == "yes" and not self.problems

    def __str__(self) -> str:
        lines = [f"{'question':<14}{'answer':<11}why"]
        for answer in self.answers:
            why = answer.why.removeprefix("not asked: ")
            text = textwrap.wrap(why, WIDTH - 25) or [""]
            lines.append(f"{answer.question:<14}{answer.verdict:<11}{text[0]}")
            lines += [" " * 25 + more for more in text[1:]]
            for measure in answer.measures:
                mark = {True: "✓", False: "✗", None: "·"}[measure.holds]
                lines += textwrap.wrap(
                    f"{mark} {measure}", WIDTH, initial_indent=" " * 25, subsequent_indent=" " * 27
                )
            if answer.verdict != "yes":
                next_ = f"→ {answer.next}"
                lines += textwrap.wrap(next_, WIDTH, initial_indent=" " * 25, subsequent_indent=" " * 27)
        return "\n".join(lines)


def diagnose(
    source: Any,
    rows: Source | None = None,
    draws: int = 1000,
    seed: int = 0,
    ranks: tuple[np.ndarray[Any, Any], int] | None = None,
    held_out: Source | None = None,
) -> Diagnosis:
    """Is the mask converged, and can it be trusted? Five answers, reported apart.

    Args:
        source: results of ``fit`` (one, several, or a ``Posterior``), or draws from ``to_arviz``. Draws alone
            cannot be asked what needs the networks: matching of hidden units, exact enumeration.
        rows: training rows, as ``fit`` takes them, on which the exact answers rest.
        draws: from each fit, where results are given.
        seed: of the draws.
        ranks: (ranks, draws) of simulation-based calibration, if you have made one.
        held_out: rows that were not trained on, for the calibration error and the scores of masks. A fit to
            rows in memory knows those again, so that either kind in the other's place is found.

    Returns:
        The answers; ``print`` shows them as a table.

    Raises:
        DataError: rows that are none, not whole, or not like those that the network was gated on; or more
            than half of ``rows`` were not trained on, or of ``held_out`` were.
        PosteriorError: a source of another program, or rows given with draws that were made without them.

    Warns:
        RowsWarning: some, up to half, are of the other kind.

    Example:
        >>> import torch
        >>> import bayesprune as bp
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))
        >>> gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=100))
        >>> answers = bp.diagnose(gated, draws=50)
        >>> answers.decided.verdict, answers.reproducible.why
        ('no', 'not asked: needs 4 fits, and has 1')
    """
    if ranks is not None and not (isinstance(ranks, tuple | list) and len(ranks) == 2 and is_whole(ranks[1])):
        raise PosteriorError(
            f"ranks={ranks!r} must be a pair (ranks, draws): of each simulation its rank among so many draws."
        )
    evidence = _evidence(source, rows, held_out, draws, seed)
    with using_threads(_threads(evidence)):
        return Diagnosis(
            optimised(evidence),
            decided(evidence),
            reproducible(evidence),
            faithful(evidence),
            calibrated(evidence, ranks),
        )


def _threads(evidence: Evidence) -> int:
    """By the size of a pass, of which enumeration takes thousands; PyTorch's number where nothing is run."""
    if not evidence.fits or evidence.rows is None:
        return torch.get_num_threads()
    return threads_for(evidence.fits[0].gated.dense_macs, len(evidence.rows[0]), learns=False)


def _evidence(source: Any, rows: Source | None, held_out: Source | None, draws: int, seed: int) -> Evidence:
    check_seed(seed, PosteriorError)
    if isinstance(source, FitResult | GatedModel | Sequence):
        source = Posterior.of(source)
    if isinstance(source, Posterior):
        fits = source.fits
        learnt = None if rows is None else check_rows(fits[0].gated, rows)
        others = None if held_out is None else check_rows(fits[0].gated, held_out)
        known = told_apart(fits, learnt, others)

        def drawn(part: Rows | None) -> Groups:
            return unwrap(source.to_arviz(draws, seed=seed, prior=0, rows=part, observed=part is not None))

        return Evidence(drawn(learnt), fits, learnt, None if others is None else drawn(others), known)
    groups = unwrap(source)
    if rows is not None or held_out is not None:
        raise PosteriorError(
            "rows= and held_out= can only be given with the results of fit(): draws alone have no network to "
            "run. Make the draws with to_arviz(rows=(x, y), observed=True), or diagnose the results."
        )
    check_contents(groups, "The draws")
    return Evidence(groups)
