"""What a fit gives back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from bayesprune.callers import level
from bayesprune.errors import RoundingWarning, SettingsError, UnsupportedNetworkError
from bayesprune.gated import GatedModel
from bayesprune.gated.dead import dead_units
from bayesprune.likelihoods import Likelihood, Member
from bayesprune.rows.digests import Digests
from bayesprune.structure.copying import copy_of
from bayesprune.structure.weight_posterior import WeightPosterior
from bayesprune.svi.moves import Decision

if TYPE_CHECKING:
    from bayesprune.posterior import EvidenceTable, Posterior


@dataclass(frozen=True)
class Epoch:
    """One epoch, looked back upon.

    Attributes:
        epoch: its number, from 1.
        elbo: estimate at its end, nats: minus (rows × mean NLL over the epoch + the priors' nats at its end).
            Weights that are points count by their prior density, so that it may be positive: only
            differences between epochs mean something.
        nll: mean negative log-likelihood of a row over the epoch, nats, under the drawn gates.
        prior_weight: factor on the gates' prior at its end.
        seconds: it took.
        kept: group → living units at its end.
        parameters_percent: parameters left, of the dense network's.
        macs_percent: multiply-accumulates left, of the dense network's.
        undecided: gates with 0.01 < q(z = 1) < 0.99.
        inclusion: (units of all groups,), q(z = 1) at its end, on the CPU.
        validation: the likelihood's score on the validation rows, mean per row, if there are any.
    """

    epoch: int
    elbo: float
    nll: float
    prior_weight: float
    seconds: float
    kept: dict[str, int]
    parameters_percent: float
    macs_percent: float
    undecided: int
    inclusion: Tensor = field(repr=False)
    validation: float | None = None


ROUNDED = 0.05
"""Share of the gates that the clock, or a budget, may have decided and not the evidence."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Draws of a sampler, which has no guide to draw from again. All of one chain, in order.

    Attributes:
        gates: (draws, units of all groups), zeros and ones.
        weights: tensor name → (draws, ...).
        hyper: hyper-site → (draws, ...).
        log_prior: (draws,), log p(gates, weights, hyper-sites), nats.
        log_joint: (draws,), the same and the training rows' log-likelihood: log q up to log p(rows).
    """

    gates: Tensor
    weights: dict[str, Tensor]
    hyper: dict[str, Tensor]
    log_prior: Tensor
    log_joint: Tensor


@dataclass(frozen=True)
class FitResult:
    """A fitted model and how it came about.

    Attributes:
        gated: the fitted model; the one handed to ``fit`` is left alone.
        history: one record an epoch.
        seconds: wall time of the training, without validation and checkpoints.
        rounded: gates that were still undecided when they were put at the nearer vertex; under a budget, all
            that were put where they were not already.
        decided_at: the epoch, from 1, in which that happened; None if it never did.
        at_decision: the model just before: its gates undecided, with the weights of the units that were then
            rounded away. None where nothing was decided, and of fits that an earlier version has begun.
        left_undecided: whether gates were to stay undecided, ``Recipe(decides=False)``.
        trained_on: digests of the training rows, by which ``bp.diagnose`` knows them from held-out ones; None
            where they were not in memory.
        decision: moves of units that were made when gates were decided, and their nats. The
            posterior ``at_decision`` is the guide's, without them.
        samples: a sampler's draws, of which ``posterior("decision")`` consists; None of a guide's.
    """

    gated: GatedModel
    history: tuple[Epoch, ...]
    seconds: float
    rounded: int
    decided_at: int | None
    at_decision: GatedModel | None = field(default=None, repr=False)
    left_undecided: bool = False
    trained_on: Digests | None = field(default=None, repr=False, compare=False)
    decision: Decision = field(default_factory=Decision)
    samples: Samples | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.gated.likelihood.fitted = True
        if self.at_decision is not None:
            self.at_decision.likelihood.fitted = True

    @property
    def decided_by_clock(self) -> bool:
        """Whether more than 0.05 of all gates were put at a vertex since time was up, not for a budget."""
        budget = getattr(self.gated.prior, "budget", None)
        return budget is None and self.rounded > ROUNDED * len(self.gated.alive)

    @property
    def undecided(self) -> int:
        """Gates with 0.01 < q(z = 1) < 0.99 at the end."""
        return self.history[-1].undecided if self.history else 0

    @property
    def likelihood(self) -> Likelihood:
        """How outputs explain targets, as it was learnt: the one to score the pruned network by."""
        return self.gated.likelihood

    @property
    def architecture(self) -> list[int]:
        """Units kept per group, in order."""
        return list(self.gated.kept().values())

    def posterior(self, at: str = "end") -> Posterior:
        """What was learnt, as a value: ``.to_arviz()`` makes draws of it. ``bp.Posterior.of`` joins fits.

        Args:
            at: ``"end"``, gates and weights as they are now: one mask, if gates were decided; or
                ``"decision"``, as they were just before they were rounded.

        Raises:
            PosteriorError: ``at`` is neither, or there was no decision.
        """
        from bayesprune.posterior import Posterior  # here: ArviZ takes long to import

        return Posterior.of(self, at)

    def as_teacher(self, draws: int = 32, seed: int = 0) -> tuple[Member, ...]:
        """Its predictive, as a teacher for ``bp.Distilled``: the mean over draws of masks and weights.

        Args:
            draws: how many.
            seed: of them; they are drawn once.
        """
        return self.gated.as_teacher(draws, seed)

    def evidence(self, rows: tuple[Tensor, Tensor], **settings: Any) -> EvidenceTable:
        """Price and evidence of every unit that is left.

        Args:
            rows: (inputs, targets), the training rows.
            settings: of ``bp.evidence``, such as ``units=10``: exact gains of the ten nearest to the line.
        """
        from bayesprune.posterior import evidence

        return evidence(self, rows, **settings)


@overload
def prune(result: FitResult | GatedModel, *, posterior: Literal[False] = False) -> nn.Module: ...


@overload
def prune(result: FitResult | GatedModel, *, posterior: Literal[True]) -> WeightPosterior: ...


def prune(result: FitResult | GatedModel, *, posterior: bool = False) -> nn.Module | WeightPosterior:
    """The small network, as plain PyTorch in eval mode.

    Args:
        result: of a fit, or a gated model; left alone.
        posterior: with the standard deviations of its weights, where they have a posterior.

    Returns:
        Layers in order under their original names, with the posterior means of the weights: of the
        median-probability model, as `pruned` has it. With ``posterior``, that network and the deviations,
        from which networks can be drawn, and which ``bp.save`` keeps.

    Raises:
        SettingsError: something else; or ``posterior`` where weights are points.
        UnsupportedNetworkError: weights of the small network have no deviations of their shape.
    """
    cut = pruned(result)
    network = cut.network.plain().eval()
    return WeightPosterior(network, _deviations(cut, network)) if posterior else network


@torch.no_grad()
def _deviations(gated: GatedModel, network: nn.Module) -> dict[str, Tensor]:
    """Parameter name → standard deviation, in the unit that the plain network has its weights in."""
    scales = gated.log_scales_by_tensor()
    if not scales:
        raise SettingsError(
            "prune(posterior=True): the weights are points. Fit with Recipe(compact_weights='normal'), or "
            "gate with NormalWeights(posterior='normal')."
        )
    head, parameters, found = gated.network.frame, dict(network.named_parameters()), {}
    unit = gated.network.get_buffer("_frame_unit") if head is not None else None
    for name, log_scale in scales.items():
        deviation = log_scale.exp()
        if head is not None and unit is not None and name in (head.weight, head.bias):
            deviation = (deviation.double() * unit.double()).to(deviation)
        if name not in parameters or parameters[name].shape != deviation.shape:
            raise UnsupportedNetworkError(
                f"prune(posterior=True): {name!r} has standard deviations of shape {tuple(deviation.shape)}, "
                "and the small network no such parameter. Take bp.predict, or prune without posterior=."
            )
        found[name] = deviation.clone()
    return found


def pruned(result: FitResult | GatedModel) -> GatedModel:
    """The gated model of the median-probability model: without the units below one half.

    With gates decided nothing is left to remove. Every group keeps its most probable unit: a layer without
    units would be no network. Continuous gates become their means, in the weights that read their units.

    Args:
        result: of a fit, or a gated model; left alone.

    Returns:
        A copy, cut; its counts are those of the network that `prune` gives.

    Raises:
        SettingsError: it is something else.

    Warns:
        EmptyGroupWarning: all of a group's probabilities are below one half; it is named.
        RoundingWarning: the fit has left gates undecided; how many is said.
    """
    if not isinstance(result, FitResult | GatedModel):
        raise SettingsError(
            f"prune takes what fit returned, or a gated model, and got a {type(result).__name__}: a plain "
            "trained network is pruned by bp.selection.prune(network, rule, example=…)."
        )
    if isinstance(result, FitResult) and result.left_undecided:
        _say_rounded(result)
    gated = copy_of(result.gated if isinstance(result, FitResult) else result)
    gated.remove_(dead_units(gated, 0.5))
    gated.settle_continuous_()
    return gated


def _say_rounded(result: FitResult) -> None:
    gated = result.gated
    probs = gated.inclusion_prob().detach()
    open_to_doubt = int(((probs > 0.01) & (probs < 0.99) & ~gated.scored()).sum())
    if open_to_doubt:
        warnings.warn(
            f"The fit has left {open_to_doubt} of {len(probs)} gates undecided, and a network has to be one: "
            "units below q(z = 1) = 1/2 were removed, the others kept. Weights were learnt under drawn "
            "masks; bp.predict(result, x) averages over them.",
            RoundingWarning,
            stacklevel=level(),
        )
