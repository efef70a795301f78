"""Taylor: units whose removal would change the loss little, to first order, go first."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesprune.errors import SelectionError
from bayesprune.likelihoods import Likelihood
from bayesprune.rows import Inputs
from bayesprune.selection.masks import Scores
from bayesprune.selection.rows import pairs_of
from bayesprune.selection.rule import Scope, Scored
from bayesprune.selection.subject import Subject
from bayesprune.structure.running import evaluating

ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Taylor(Scored):
    r"""First-order importance.

    .. math:: s_u = \frac{1}{R} \sum_r \Big| \sum_{p} \frac{\partial \ell_r}{\partial a_{rup}}\, a_{rup} \Big|
                  = \frac{1}{R} \sum_r \Big| \frac{\partial \ell_r}{\partial z_{ru}} \Big|_{z = 1}

    with ℓ_r the negative log-likelihood of row r, a the unit's activations at its readers and positions p,
    and z its gate: the sum over positions is the derivative in the gate, so that one backward pass serves
    every network. Molchanov, Tyree, Karras, Aila & Kautz (2017), Pruning Convolutional Neural Networks for
    Resource Efficient Inference (literature, not re-read here; they average over positions, a constant
    factor in a layer).

    Attributes:
        rows: (rows, ...), inputs.
        targets: (rows, ...), as the likelihood takes them.
        likelihood: by default the posterior's, where there is one.
    """

    rows: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    likelihood: Likelihood | None = None
    scope: Scope = field(default="global", init=False, repr=False)

    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """group → (size,), nats a row; sections too."""
        likelihood = likelihood_of(subject, self.likelihood, "Taylor")
        rows, targets = pairs_of(subject, likelihood, self.rows, self.targets, "Taylor")
        totals = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in subject.groups}
        size = ROWS_AT_ONCE
        start = 0
        while start < len(rows):
            x, y = rows[start : start + size], targets[start : start + size]
            try:
                slopes = _slopes(subject, likelihood, x, y)
            except ValueError:  # rows have no dimension of their own somewhere: one at a time
                if size == 1:
                    raise
                size = 1
                continue
            for name, slope in slopes.items():
                totals[name] += slope.abs().sum(0).double().cpu()
            start += size
        return {name: total / len(rows) for name, total in totals.items()}


def _slopes(subject: Subject, likelihood: Likelihood, x: Inputs, y: Tensor) -> Scores:
    """group → (rows, size), ∂ℓ/∂z at z = 1; zeros for removed units."""
    network = subject.network
    like = next(p for p in network.parameters() if p.is_floating_point())
    x = x.to(like.device)
    gates, living = {}, {}
    for group in subject.groups:
        alive = subject.alive[group.name]
        shape = (int(alive.sum()),) if len(x) == 1 else (len(x), int(alive.sum()))
        gates[group.name] = torch.ones(shape, dtype=like.dtype, device=like.device, requires_grad=True)
        living[group.name] = alive
    with evaluating(network), torch.enable_grad():
        outputs = likelihood.part(network(x, gates), len(x))
        loss = likelihood.nll(outputs, y.to(like.device)).sum()
        found = torch.autograd.grad(loss, list(gates.values()), allow_unused=True)
    slopes: Scores = {}
    for (name, alive), slope in zip(living.items(), found, strict=True):
        slopes[name] = torch.zeros(len(x), len(alive), dtype=like.dtype)
        if slope is not None:
            slopes[name][:, alive] = slope.detach().reshape(len(x), -1).cpu()
    return slopes


def likelihood_of(subject: Subject, likelihood: Likelihood | None, rule: str) -> Likelihood:
    """The likelihood given, else the posterior's.

    Raises:
        SelectionError: there is none.
    """
    found = likelihood if likelihood is not None else getattr(subject.gated, "likelihood", None)
    if not isinstance(found, Likelihood):
        raise SelectionError(
            f"{rule} needs to know how outputs explain targets: give "
            "likelihood=bp.Categorical(rows=len(x_train))."
        )
    return found
