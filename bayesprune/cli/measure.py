"""The figures of a run: of one seed, and over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bayesprune.data import Split
from bayesprune.svi import Epoch, FitResult, evaluate
from bayesprune.svi.result import pruned


def measure(result: FitResult, test: Split) -> tuple[nn.Module, dict[str, Any]]:
    """Prune a fitted model and measure what comes out, on rows that it never saw.

    Args:
        result: of the fit.
        test: rows to measure on.

    Returns:
        The pruned network, on the CPU, and its figures as plain values: `test_error_percent` (or `test_` and
        the likelihood's own score), `test_nll` (nats per row), `dense_parameters`, `dense_macs`,
        `parameters_kept`, `parameters_kept_percent`, `macs_kept`, `macs_kept_percent`, `groups`,
        `dense_architecture`, `architecture` (units kept per group, in order), `undecided_gates`,
        `rounded_gates` (undecided until they were put at the nearer vertex), `seconds`; and what was learnt
        of the likelihood, such as `noise_scale`.
    """
    gated = pruned(result).to("cpu")
    network = gated.network.plain().eval()
    quality = evaluate(network, (test.x, test.y), gated.likelihood)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    macs = gated.network.macs()
    return network, {
        f"test_{quality.name}": quality.score,
        "test_nll": quality.nll,
        "dense_parameters": gated.dense_parameters,
        "dense_macs": gated.dense_macs,
        "parameters_kept": parameters,
        "parameters_kept_percent": 100 * parameters / gated.dense_parameters,
        "macs_kept": macs,
        "macs_kept_percent": 100 * macs / gated.dense_macs,
        "groups": [group.name for group in gated.groups],
        "dense_architecture": [group.size for group in gated.groups],
        "architecture": list(gated.kept().values()),
        "undecided_gates": result.undecided,
        "rounded_gates": result.rounded,
        **gated.likelihood.learnt(),
        "seconds": result.seconds,
    }


def over_seeds(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of the figures over seeds, without those of baselines.

    Args:
        seeds: figures of each seed.

    Returns:
        The same keys; numbers, and lists of numbers entry by entry, become means, with the sample standard
        deviation under `<key>_std` where there are several seeds. What is no number is taken from the first
        seed.
    """
    means: dict[str, Any] = {}
    for key, first in seeds[0].items():
        values = [seed[key] for seed in seeds]
        if key in ("seed", "baseline"):
            continue
        if isinstance(first, list):
            columns = list(zip(*values, strict=True))
            means[key] = [_mean(column) for column in columns]
            if any(value != first for value in values):
                means[f"{key}_std"] = [statistics.stdev(column) for column in columns]
        else:
            means[key] = _mean(values)
            if len(seeds) > 1 and not key.startswith("dense_"):
                means[f"{key}_std"] = statistics.stdev(values)
    return means


def history(epochs: Sequence[Epoch]) -> list[dict[str, Any]]:
    """The epochs of a fit as plain values.

    Args:
        epochs: `FitResult.history`.

    Returns:
        One dict an epoch, tensors as lists, what is not finite as None.
    """
    return [{key: _plain(value) for key, value in vars(epoch).items()} for epoch in epochs]


def _mean(values: Sequence[Any]) -> Any:
    if all(value == values[0] for value in values):
        return values[0]  # exact, and an integer stays one; names too
    return statistics.fmean(values)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return [round(number, 6) for number in value.tolist()]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
