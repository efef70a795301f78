"""Are today's rows like those of the calibration? A two-sample test by permutation, exact at every size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from bayesprune.certify.losses import Loss, loss_from
from bayesprune.certify.losses.classes import confidence_of, no_classes
from bayesprune.certify.pvalues import Array
from bayesprune.certify.rows import EACH, CalibrationRows
from bayesprune.certify.scoring import outputs_of
from bayesprune.errors import CertificateError
from bayesprune.likelihoods.parts import Part
from bayesprune.ranges import check_seed, is_whole

CHUNK = 2**21
"""Numbers that are permuted at a time."""

Statistic = Callable[[Array, Array], float]


@dataclass(frozen=True)
class TwoSample:
    """What a test of exchangeability found.

    Attributes:
        p_value: at most u with probability at most u, for every u, where all rows are exchangeable.
        statistic: what was compared, on the rows as they are.
        before: rows of the calibration, how many.
        now: today's.
        permutations: that it was compared with.
    """

    p_value: float
    statistic: float
    before: int
    now: int
    permutations: int

    def __str__(self) -> str:
        extreme = round(self.p_value * (self.permutations + 1)) - 1
        return (
            f"p-value {self.p_value:.3g}: {self.now:,} rows of today against {self.before:,}; "
            f"{extreme:,} of {self.permutations:,} permutations are as unlike or more "
            f"(statistic {self.statistic:.4g})"
        )


def permutation_test(
    before: Any,
    now: Any,
    *,
    statistic: str | Statistic = "distance",
    permutations: int = 999,
    seed: int = 0,
) -> TwoSample:
    r"""Test whether two sets of scores are exchangeable: whether who came when could as well be otherwise.

    .. math:: p = \frac{1 + \#\{b : T(\pi_b) \ge T\}}{1 + B}

    over B permutations of all scores. Where the scores are exchangeable (independent draws of one source
    are), the observed order is one more such permutation, and its rank among B + 1 is uniform but for ties,
    which count against it: :math:`P(p \le u) \le u`, exactly, for any number of rows, scores and
    permutations.

    Args:
        before: (rows,), scores of calibration rows.
        now: (rows,), scores of today's.
        statistic: ``"higher"`` (mean of today's minus mean of before: of losses), ``"lower"``, ``"distance"``
            (the largest distance of their distribution functions, Kolmogorov–Smirnov), or a function of two
            arrays, large where they differ.
        permutations: B; p cannot be below 1 / (1 + B).
        seed: of the permutations, fixed beforehand.

    Raises:
        CertificateError: no scores, some that are not finite, or settings that are none.

    Source:
        E. Pitman (1937), Supplement to JRSS 4; ranks of a Monte-Carlo test are exact: J. Hemerik & J. Goeman
        (2018), TEST 27.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> first, same, worse = generator.random(200), generator.random(100), generator.random(100) ** 0.5
        >>> permutation_test(first, same).p_value > 0.05 > permutation_test(first, worse).p_value
        True
    """
    first, second = checked_scores(before, "before"), checked_scores(now, "now")
    if not is_whole(permutations) or permutations < 1:
        raise CertificateError(f"permutations={permutations!r}: give a whole number of at least 1, as 999.")
    check_seed(seed, CertificateError)
    compare = _compare(statistic)
    pooled, count = np.concatenate([first, second]), len(second)
    mark = np.arange(len(pooled)) >= len(first)
    observed = float(compare(pooled, mark[None])[0])
    generator, extreme, done = np.random.default_rng(seed), 0, 0
    while done < permutations:
        some = min(permutations - done, max(1, CHUNK // len(pooled)))
        marks = generator.permuted(np.broadcast_to(mark, (some, len(mark))), axis=1)
        # sums in another order differ by rounding: what is equal on paper counts as equal
        extreme += int((compare(pooled, marks) >= observed - 1e-12 * max(1.0, abs(observed))).sum())
        done += some
    return TwoSample((1 + extreme) / (1 + permutations), observed, len(first), count, permutations)


def exchangeable(
    network: nn.Module,
    before: Any,
    now: Any,
    *,
    score: str | Loss = "confidence",
    statistic: str | Statistic | None = None,
    reference: nn.Module | None = None,
    output: Part = None,
    permutations: int = 999,
    seed: int = 0,
    batch_size: int = 250,
) -> TwoSample:
    """Test whether calibration rows and today's rows are exchangeable, by what a network makes of them.

    The network must not have been chosen by the calibration rows: give the reference network of a
    certificate, or one of a path that was fixed. The certified one was chosen where its losses on these rows
    were few, and others will look worse to it.

    Args:
        network: whose scores are compared.
        before: calibration rows, in any form that ``certify`` takes.
        now: today's.
        score: ``"confidence"`` (the probability of the predicted class; needs no labels), or a loss by its
            name or as it is.
        statistic: as in ``permutation_test``; by default ``"distance"`` of confidences and ``"higher"`` of
            losses.
        reference: the network that was pruned, for losses that compare with it.
        output: which part of what the network returns is meant; None where it returns one tensor.
        permutations: how many.
        seed: of the permutations, fixed beforehand.
        batch_size: rows at a time.

    Returns:
        The p-value, and what it rests on. Small, it says that the two sets are not of one source, so that a
        certificate says nothing of today's rows; large, it does not say that they are.

    Raises:
        CertificateError: rows that the network does not run on, labels that are missing, or settings.
    """
    scores = [
        scores_of(network, rows, score, reference=reference, output=output, batch_size=batch_size)
        for rows in (before, now)
    ]
    kind = statistic or ("distance" if score == "confidence" else "higher")
    return permutation_test(*scores, statistic=kind, permutations=permutations, seed=seed)


def scores_of(
    network: nn.Module,
    rows: Any,
    score: str | Loss = "confidence",
    *,
    reference: nn.Module | None = None,
    output: Part = None,
    batch_size: int = 250,
) -> Array:
    """(rows,), float64: a network's confidence in its class, or its loss, on each row that counts.

    Args:
        network: left in the mode that it was in.
        rows: in any form that ``certify`` takes; rows that repeat count each.
        score: ``"confidence"``, or a loss.
        reference: the network that was pruned, for losses that compare with it.
        output: which part of what the network returns is meant; None where it returns one tensor.
        batch_size: rows at a time.

    Raises:
        CertificateError: rows that the network does not run on, labels or a reference network that are
            missing.
    """
    given = CalibrationRows.of(rows, EACH)
    found = outputs_of(network, given.x, batch_size, "network", output)
    if score == "confidence":
        wrong = no_classes(found)
        if wrong:
            raise CertificateError("Confidences: " + " ".join(wrong))
        return np.asarray(confidence_of(found).double().numpy())
    loss = loss_from(score)
    if loss.labelled and given.y is None:
        raise CertificateError(
            f"The loss {loss.name!r} needs labels: give rows as (x, y), or score='confidence'."
        )
    if loss.comparing and reference is None:
        raise CertificateError(
            f"The loss {loss.name!r} compares with the network that was pruned: reference=."
        )
    whole = found if reference is None else outputs_of(reference, given.x, batch_size, "reference", output)
    wrong = loss.problems(whole, given.y if loss.labelled else None)
    if wrong:
        raise CertificateError(f"Loss {loss.name!r}: " + " ".join(wrong))
    return loss.scores(found, whole, given.y).losses


def _compare(statistic: str | Statistic) -> Callable[[Array, Any], Array]:
    """Pooled scores and (permutations, rows) marks of today's → (permutations,)."""
    if statistic == "distance":
        return _distance
    if statistic in ("higher", "lower"):
        sign = 1.0 if statistic == "higher" else -1.0
        return lambda pooled, marks: sign * _difference(pooled, marks)
    if not callable(statistic):
        raise CertificateError(
            f"statistic={statistic!r}: give 'higher', 'lower', 'distance', or a function of two arrays."
        )
    own = statistic
    return lambda pooled, marks: np.array([float(own(pooled[~mark], pooled[mark])) for mark in marks])


def _difference(pooled: Array, marks: Any) -> Array:
    count, total = int(marks[0].sum()), pooled.sum()
    today = marks @ pooled
    return np.asarray(today / count - (total - today) / (len(pooled) - count))


def _distance(pooled: Array, marks: Any) -> Array:
    order = np.argsort(pooled, kind="stable")
    ends = np.append(
        np.flatnonzero(np.diff(pooled[order])), len(pooled) - 1
    )  # the last of each that are equal
    count = int(marks[0].sum())
    today = np.cumsum(marks[:, order], 1, dtype=np.int64)[:, ends]
    before = ends + 1 - today
    return np.asarray(np.abs(today / count - before / (len(pooled) - count)).max(1))


def checked_scores(scores: Any, name: str) -> Array:
    """(rows,), float64.

    Args:
        scores: what somebody gives as such.
        name: of it, for messages.

    Raises:
        CertificateError: none, or not one finite number a row.
    """
    try:
        found = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise CertificateError(
            f"{name}= cannot be read as scores ({problem}): give one number a row."
        ) from None
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise CertificateError(
            f"{name}= is of shape {found.shape}, or not finite: give one finite score a row, at least one."
        )
    return found
