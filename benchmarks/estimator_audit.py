"""What an estimator of the gates' gradient gets wrong: bias and spread against known gains, in nats."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import bayesprune as bp
from bayesprune.svi.estimators import ESTIMATORS, GateProblem

MOMENTUM = bp.GateSteps().momentum
NAMES = ("straight_through", "curved", "second_order", "concrete", "arm", "reinforce")


@dataclass(frozen=True)
class Reference:
    """Gains that estimates are held against.

    Attributes:
        units: (asked,), places among the living units.
        gain: (asked,), nats of the whole training set, N · (E[L | z = 0] − E[L | z = 1]).
        error: (asked,), their standard errors, nats; zeros where they are enumerated.
        price: (asked,), nats.
        theta: (asked,), q(z = 1).
    """

    units: Tensor
    gain: Tensor
    error: Tensor
    price: Tensor
    theta: Tensor


def estimates(gated: bp.GatedModel, rows, name: str, batch_size: int, draws: int, seed: int) -> Tensor:
    """(batches, draws, living units), gains as single steps see them, nats of the whole training set."""
    gated.eval().requires_grad_(False)
    probs = gated.inclusion_prob()[gated.alive]
    generator, found = torch.Generator().manual_seed(seed), []
    for x, y in zip(rows[0].split(batch_size), rows[1].split(batch_size), strict=True):
        anchor = torch.ones((), requires_grad=True)  # what the score-function estimators differentiate

        def nll(gates, factors=None, x=x, y=y, anchor=anchor):
            return gated.likelihood.nll(gated.network(x, gates), y) * anchor

        problem = GateProblem(nll, probs, torch.logit(probs), gated.kept(), len(x), generator)
        slopes = [ESTIMATORS[name](problem).differentiated() for _ in range(draws)]
        found.append(-gated.likelihood.rows * torch.stack(slopes))
    return torch.stack(found).double()


def compare(found: Tensor, reference: Reference, chosen: Tensor | None = None) -> dict[str, float]:
    """Bias and spread over some units.

    Args:
        found: (batches, draws, living units), of ``estimates``, from the rows of the reference.
        reference: the gains that should have been found.
        chosen: (units,), places in the reference; by default all.

    Returns:
        ``gain``: root mean square of the reference over units. ``bias``: root mean square over units of
        E[estimate] − reference, with what noise alone adds taken off; ``bias_error``: by how much it may be
        more, at two standard errors. ``spread``: standard deviation of one step's estimate, of rows and gates
        together; ``of_draws``: of gates alone. ``smoothed``: root mean square error of the running mean that
        moves the gates, √(bias² + spread² (1 − β)/(1 + β)), momentum β = 0.98. ``seen``: slope of estimates
        on references through the origin; ``correlation`` between the two. ``misjudged``: share of units that
        lie on the wrong side of their price, of the ``clear`` ones, whose reference is three standard errors
        from it.
    """
    chosen = torch.arange(len(reference.units)) if chosen is None else chosen
    part = found[:, :, reference.units[chosen]]  # (batches, draws, units)
    batches, draws = part.shape[:2]
    gain, mean = reference.gain[chosen], part.mean((0, 1))
    of_draws = part.var(1).mean(0)
    noise = of_draws / (batches * draws) + reference.error[chosen].square()
    off = mean - gain
    squared = (off.square() - noise).mean()
    doubt = (2 * noise.square() + 4 * noise * off.square()).sum().sqrt() / len(off)
    clear = (gain - reference.price[chosen]).abs() > 3 * reference.error[chosen]
    wrong = ((mean > reference.price[chosen]) != (gain > reference.price[chosen])) & clear
    true_square = (gain.square() - reference.error[chosen].square()).mean().clamp_min(0)
    total = part.mean(1).var(0) + of_draws * (1 - 1 / draws)
    smoothed = squared.clamp_min(0) + total.mean() * (1 - MOMENTUM) / (1 + MOMENTUM)
    figures = {
        "gain": true_square.sqrt(),
        "bias": squared.clamp_min(0).sqrt(),
        "bias_error": _half_width(squared, doubt),
        "mean_bias": off.mean(),
        "mean_bias_error": noise.mean().sqrt() / len(off) ** 0.5,
        "spread": total.mean().sqrt(),
        "of_draws": of_draws.mean().sqrt(),
        "smoothed": smoothed.sqrt(),
        "seen": (mean * gain).mean() / true_square,
        "correlation": torch.corrcoef(torch.stack([mean, gain]))[0, 1],
        "misjudged": wrong.sum() / clear.sum() if bool(clear.any()) else torch.tensor(math.nan),
    }
    counts = {"units": len(off), "clear": int(clear.sum())}
    return counts | {name: float(f"{float(value):.5g}") for name, value in figures.items()}


def _half_width(squared: Tensor, doubt: Tensor) -> Tensor:
    """From two standard errors of a squared bias to the width of the bias above it."""
    low = squared.clamp_min(0)
    return (low + 2 * doubt).sqrt() - low.sqrt()


def by_regime(reference: Reference) -> dict[str, Tensor]:
    """Which units are nearly shut, undecided and nearly open."""
    theta = reference.theta
    parts = {"θ < 0.1": theta < 0.1, "0.1 ≤ θ ≤ 0.9": (theta >= 0.1) & (theta <= 0.9), "θ > 0.9": theta > 0.9}
    return {name: mask.nonzero().squeeze(1) for name, mask in parts.items() if int(mask.sum()) >= 3}
