"""certify(): the sparsest network of a path whose risk is below a level, with a stated probability."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from tqdm import tqdm

from bayesprune.certify.certificate import Certificate
from bayesprune.certify.checks import check_levels, check_network, check_output, check_outputs, check_test
from bayesprune.certify.losses import Loss, several_from
from bayesprune.certify.paths import Path, path_from
from bayesprune.certify.pvalues import PValue, p_value_from
from bayesprune.certify.record import Found, Question, certificate_of, sparsest
from bayesprune.certify.rows import CalibrationRows, held_out
from bayesprune.certify.rules import Rule, rule_from
from bayesprune.certify.scoring import outputs_of, p_values, score, threads_of
from bayesprune.errors import CertificateError
from bayesprune.likelihoods.parts import Part
from bayesprune.ranges import is_whole
from bayesprune.svi.threads import using_threads
from bayesprune.terminal import bar_hidden


@dataclass(frozen=True)
class Certified:
    """What ``certify`` gives back.

    Attributes:
        network: the sparsest certified one, or None where no candidate could be certified.
        certificate: what is guaranteed of it, to be written to a file.
    """

    network: nn.Module | None = field(repr=False)
    certificate: Certificate

    def __bool__(self) -> bool:
        return self.network is not None

    def __str__(self) -> str:
        return str(self.certificate)


def certify(
    network: nn.Module,
    rows: Any,
    *,
    alpha: float | Sequence[float],
    delta: float = 0.05,
    path: str | Path | Iterable[nn.Module] = "magnitude",
    loss: str | Loss | Sequence[str | Loss] = "error",
    p_value: str | PValue | None = None,
    rule: str | Rule = "fixed-sequence",
    trained_on: Any = None,
    output: Part = None,
    target: str = "labels",
    batch_size: int = 250,
    progress: bool = True,
) -> Certified:
    r"""Find the sparsest pruning of a network whose risk is at most alpha, with probability at least 1 −
    delta.

    .. math:: P\big( R(\text{network}) \le \alpha \big) \ge 1 - \delta

    over the draw of the calibration rows, for any number of rows, any network and any source of rows (Learn
    then Test). For each candidate the hypothesis that its risk is above alpha gets a p-value; the rule says
    which are rejected, so that the probability of a single false rejection is at most delta; the sparsest
    of these ships.

    Args:
        network: the reference: dense, or pruned already. Left alone.
        rows: of calibration, never trained on, in any form that ``fit`` takes: inputs (rows, ...), a pair
            (x, y) with labels (rows,), a dict of inputs and labels, a data set, a loader; several inputs
            without labels are ((a, b), None). Rows that repeat are refused;
            ``CalibrationRows.of(rows, repeats=…)`` says what they are.
        alpha: the risk that is allowed, in (0, 1). Choose it before the rows are looked at. Of several
            losses a list, one for each, or one for all.
        delta: how often the guarantee may fail, in (0, 1).
        path: ``"magnitude"`` (weights set to zero, over all layers), ``"magnitude-layers"``, ``"units"``
            (removed, by magnitude), one of ``bayesprune.certify.paths``, or any networks, the least pruned
            first.
        loss: ``"error"``, ``"excess"``, ``"new-errors"``, ``"disagreement"``, ``"selective"``, or one of
            ``bayesprune.certify.losses``. A list bounds several risks at once, all with the one delta:
            nothing is paid for their number (``bayesprune.certify.losses.Several``).
        p_value: ``"binomial"``, ``"hoeffding-bentkus"`` or ``"betting"``; by default the exact binomial for
            losses of 0 and 1, betting for others.
        rule: ``"fixed-sequence"``, ``"split-fixed-sequence"``, ``"multi-start"`` or ``"bonferroni"``, or one
            of ``bayesprune.certify.rules``.
        trained_on: the training rows, in any form that ``fit`` takes, or their digests
            (``bayesprune.certify.TrainingRows``), by which a row that is used twice is found.
        output: which part of what the network returns is meant, as a likelihood's ``output``: a name, as
            ``"logits"``; a number; None where it returns one tensor. The certificate says it.
        target: under which name rows that are a dict have the labels.
        batch_size: rows at a time.
        progress: show a progress bar on stderr.

    Returns:
        The network, or None, and the certificate.

    Raises:
        CertificateError: a level out of range, too few rows (the number needed is told), labels that are
            missing, outputs that are not finite, rows that repeat, that were trained on, or that cannot be
            compared with those that were.

    Warns:
        CertificateWarning: ``trained_on`` is not given; or what the network computes cannot be written down.

    Source:
        A. Angelopoulos et al. (2021), Learn then Test, arXiv 2110.01052; for pruning by magnitude J. Alvarez
        (2024), Confident magnitude-based neural network pruning, arXiv 2408.04759.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> network = nn.Linear(20, 2)
        >>> x = torch.randn(400, 20)
        >>> rows = dict(rows=x[:300], trained_on=x[300:])
        >>> found = certify(network, **rows, alpha=0.1, loss="disagreement", progress=False)
        >>> found.certificate.statement[:66]
        'With probability at least 95 % over the draw of the 300 calibratio'
    """
    check_network(network)
    chosen_loss, alpha = several_from(loss, alpha)
    check_levels(alpha, delta)
    if not is_whole(batch_size) or batch_size < 1:
        raise CertificateError(f"batch_size={batch_size!r} must be a whole number, at least 1.")
    check_output(output)
    calibration = CalibrationRows.of(rows, target=target)
    chosen_rule, chosen_path = rule_from(rule), path_from(path)
    candidates = chosen_path.candidates(network, calibration.x[:2])
    level = chosen_rule.level(len(candidates), delta)
    test = p_value_from(p_value or ("binomial" if chosen_loss.zero_one else "betting"), level)
    check_test(calibration, len(candidates), chosen_loss, test, chosen_rule, alpha, delta)
    known = held_out(calibration, trained_on, target)

    with using_threads(threads_of(network, calibration.x, batch_size)):
        reference = outputs_of(network, calibration.x, batch_size, "reference", output)
        check_outputs(chosen_loss, reference, calibration)
        bar = tqdm(candidates, desc="certify", unit="network", file=sys.stderr, disable=bar_hidden(progress))
        scored = [score(c, calibration, reference, chosen_loss, batch_size, output) for c in bar]
        count = len(calibration)
        decision = chosen_rule.decide(
            lambda some: p_values(scored, some, chosen_loss, alpha, test), len(scored), count, delta
        )
        best = sparsest(decision, [s.left for s in scored])
        pruned = None if best is None else candidates[best].build()
        asked = Question(alpha, delta, chosen_loss, test, chosen_rule, output)
        found = Found(chosen_path.name, scored, decision, best, pruned)
        return Certified(pruned, certificate_of(asked, calibration, known, network, found))
