"""Candidates run on calibration rows: one forward pass each, in batches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bayesprune.certify.hashes import hash_of_weights
from bayesprune.certify.losses import Loss, Scores
from bayesprune.certify.paths import Candidate, numbers_left, parameters_of
from bayesprune.certify.pvalues import Array, PValue
from bayesprune.certify.rows import CalibrationRows
from bayesprune.certify.rules import Rows
from bayesprune.errors import CertificateError, LikelihoodError
from bayesprune.gated.rows import told
from bayesprune.likelihoods.parts import Part, part_of
from bayesprune.rows import Inputs, run
from bayesprune.structure.counting import Counter
from bayesprune.structure.running import evaluating
from bayesprune.svi.threads import threads_for


@dataclass(frozen=True)
class Scored:
    """A candidate that has been run.

    Attributes:
        name: of the candidate.
        scores: its losses.
        left: parameters that are not zero.
        held: parameters, zeros included.
        sha256: of its weights.
        recipe: how it is made from the reference network.
    """

    name: str
    scores: Scores = field(repr=False)
    left: int
    held: int
    sha256: str
    recipe: dict[str, object] = field(repr=False)


def outputs_of(network: nn.Module, x: Inputs, batch_size: int, name: str, output: Part = None) -> Tensor:
    """(rows, ...), what a network returns in eval mode, on the CPU.

    Args:
        network: left in the mode that it was in.
        x: (rows, ...), inputs.
        batch_size: rows at a time.
        name: of the network, for messages.
        output: which part of what it returns; None where that is one tensor.

    Raises:
        CertificateError: it cannot be run on these rows, has no such part, or its outputs are no tensor of as
            many rows, or not finite.
    """
    parameter = next(network.parameters(), None)
    device = parameter.device if parameter is not None else x.device
    parts = []
    with evaluating(network), torch.inference_mode():
        for batch in x.split(batch_size):
            outputs = _part(_run(network, batch.to(device), name), output, name)
            if outputs.ndim == 0 or len(outputs) != len(batch):
                found = tuple(outputs.shape)
                raise CertificateError(
                    f"Network {name!r}: returned {found} for {len(batch)} rows, not a tensor of one output "
                    "a row."
                )
            parts.append(outputs.cpu())
    outputs = torch.cat(parts)
    broken = int((~torch.isfinite(outputs.reshape(len(outputs), -1))).any(1).sum())
    if broken:
        raise CertificateError(
            f"Network {name!r}: its outputs for {broken:,} of {len(x):,} rows hold NaN or infinity, so "
            "that it has no risk to certify. Look at its weights, or leave it out of the path."
        )
    return outputs


def threads_of(network: nn.Module, x: Inputs, batch_size: int) -> int:
    """Processor threads that a network's passes take, by the multiply-accumulates of one.

    Args:
        network: run once, on the first row, in eval mode.
        x: (rows, ...), inputs.
        batch_size: rows at a time.

    Raises:
        CertificateError: it cannot be run on these rows.
    """
    parameter = next(network.parameters(), None)
    row = x[:1].to(parameter.device if parameter is not None else x.device)
    # with gradients: without, fused kernels hide their products; what a network warns of then is no news
    with evaluating(network), torch.enable_grad(), Counter() as counter, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _run(network, row, "reference")
    return threads_for(counter.macs, min(batch_size, len(x)), learns=False)


def _run(network: nn.Module, batch: Inputs, name: str) -> Any:
    try:
        return run(network, batch)
    except Exception as problem:  # whatever a network from a file, or of a user's own code, does
        reason = str(problem).partition("\n")[0].rstrip(".")
        raise CertificateError(
            f"Network {name!r}: does not run on calibration rows of {told(batch)} ({type(problem).__name__}: "
            f"{reason:.200}). Give rows like those that it was trained on."
        ) from problem


def _part(returned: Any, output: Part, name: str) -> Tensor:
    """The part of what a network returns that is meant."""
    try:
        found: Tensor = part_of(returned, output, f"Network {name!r}")
    except LikelihoodError as problem:
        raise CertificateError(str(problem)) from None
    return found


def score(
    candidate: Candidate,
    rows: CalibrationRows,
    reference: Tensor,
    loss: Loss,
    batch_size: int,
    output: Part = None,
) -> Scored:
    """Build a candidate, run it, and keep nothing of it but its losses.

    Args:
        candidate: of a path.
        rows: of calibration.
        reference: (rows, ...), outputs of the reference network.
        loss: what is bounded.
        batch_size: rows at a time.
        output: which part of what it returns; None where that is one tensor.
    """
    network = candidate.build()
    outputs = outputs_of(network, rows.x, batch_size, candidate.name, output)
    if outputs.shape != reference.shape:
        raise CertificateError(
            f"Network {candidate.name!r}: its outputs are {tuple(outputs.shape)}, and the reference "
            f"network's {tuple(reference.shape)}: a path is of prunings of one network."
        )
    return Scored(
        candidate.name,
        loss.scores(outputs, reference, rows.y),
        numbers_left(network),
        parameters_of(network),
        hash_of_weights(network),
        dict(candidate.recipe),
    )


def p_values(scored: Sequence[Scored], rows: Rows, loss: Loss, alpha: float, p_value: PValue) -> Array:
    """(candidates,), p-values on some of the rows.

    Args:
        scored: the candidates.
        rows: positions of the rows.
        loss: what is bounded.
        alpha: the level of its risk.
        p_value: the test.
    """
    return np.array([loss.p_value(candidate.scores.on(rows), alpha, p_value) for candidate in scored])
