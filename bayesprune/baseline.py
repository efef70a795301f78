r"""What a pruned network is measured against: three networks learnt by a plain loop on the same rows.

- *dense*: the same network from the same first weights, whole and without gates.
- *small dense*: the same layers, narrower from the start: all widths cut to the same share of an
  initialisation of its own, so that it costs no more than the pruned network.
- *magnitude*: the dense network for the first half of the steps, then cut once to the same cost by the norms
  of its units (Li et al. 2017), and fine-tuned for the other half.

All take the epochs, batches, order of rows, and learning rates of the fit: fused Adam at a constant rate,
then along a cosine from the step at which the recipe decides at the latest (for *magnitude*: from the cut).
The Gaussian prior N(0, s²) of the weights is its decay, 1/(rows · s²); averages at the end, where the recipe
has any, are taken too. What belongs to gates is not there: neither their noise nor the units'. Inputs are
not cut in *small dense* and *magnitude*, and residual sections stay. Numbers below 1e-38 count as zero.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bayesprune.errors import DivergedError, SelectionError, SettingsError
from bayesprune.gated import GatedModel
from bayesprune.gated.build import gate
from bayesprune.likelihoods import Likelihood
from bayesprune.priors import BernoulliGates, Flattening, NormalWeights
from bayesprune.rows import Pair
from bayesprune.selection import Magnitude, RandomNodes, Subject
from bayesprune.selection.family import largest
from bayesprune.selection.masks import Masks
from bayesprune.selection.rule import Scored
from bayesprune.structure.copying import copy_of
from bayesprune.structure.groups import WHOLE
from bayesprune.svi import Recipe, evaluate
from bayesprune.svi.batches import Batches, Train
from bayesprune.svi.checks import check_model, check_rows, device_of
from bayesprune.svi.optimisers import adam
from bayesprune.svi.own_unit import start_in_own_unit_
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.threads import threads_for, using_threads

Cost = Literal["macs", "parameters"]


@dataclass(frozen=True)
class Limit:
    """What a small network may cost.

    Attributes:
        what: ``"macs"``, multiply-accumulates of one row, or ``"parameters"``.
        most: as many at most.
    """

    what: Cost
    most: int

    def __post_init__(self) -> None:
        """Check both."""
        if self.what not in ("macs", "parameters"):
            raise SettingsError(f"Limit(what={self.what!r}) is neither 'macs' nor 'parameters'.")
        if isinstance(self.most, bool) or not isinstance(self.most, int) or self.most < 1:
            raise SettingsError(f"Limit(most={self.most!r}): a whole number, at least 1.")


@dataclass(frozen=True)
class Plan:
    """What all networks of a comparison share; what the fit had.

    Attributes:
        train: rows to learn from, as ``fit`` takes them.
        epochs: passes over them.
        batch_size: rows of a step; None as in ``fit``.
        seed: of the order of rows.
        recipe: the fit's: learning rates, the share at which they begin to fall, averaging.
        device: where it runs.
    """

    train: Train = field(repr=False)
    epochs: int = 30
    batch_size: int | None = None
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    device: str | torch.device = "cpu"


@dataclass(frozen=True)
class Rival:
    """A network that was learnt for comparison.

    Attributes:
        network: plain PyTorch, on the CPU, in eval mode.
        likelihood: that was learnt with it, to score it by.
        parameters: that it has.
        macs: multiply-accumulates of one row.
        seconds: of learning, by the clock on the wall.
        processor_seconds: of learning, of all threads together.
    """

    network: nn.Module = field(repr=False)
    likelihood: Likelihood = field(repr=False)
    parameters: int
    macs: int
    seconds: float
    processor_seconds: float

    def figures(self, test: Train) -> dict[str, Any]:
        """Its score on rows that it has not seen, its size and its times, as plain values.

        Args:
            test: rows, as ``evaluate`` takes them.
        """
        quality = evaluate(self.network, test, self.likelihood)
        return {
            f"test_{quality.name}": quality.score,
            "test_nll": quality.nll,
            "parameters": self.parameters,
            "macs": self.macs,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
        }


def dense(gated: GatedModel, plan: Plan) -> Rival:
    """The whole network, learnt without gates from the weights that it has now.

    Args:
        gated: from ``gate``, before ``fit``; left alone.
        plan: of the fit.

    Raises:
        SettingsError: units were removed from the model.
        DivergedError: the loss is not finite at the end.
        DataError, LikelihoodError: as ``fit``.

    Example:
        >>> import bayesprune as bp
        >>> x, y = torch.randn(64, 4), torch.randint(3, (64,))
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> gated = bp.gate(network, x[:2], prior=bp.Budget(macs=0.4), likelihood=bp.Categorical(rows=64))
        >>> plan = Plan((x, y), epochs=2, batch_size=16)
        >>> whole = dense(gated, plan)
        >>> narrow = small_dense(gated, plan, Limit("macs", most=25))
        >>> (whole.parameters, whole.macs), (narrow.parameters, narrow.macs)
        ((67, 56), (27, 21))
    """
    _check_whole(gated)
    return _learnt(_opened(gated), plan)


def small_dense(fresh: GatedModel, plan: Plan, limit: Limit) -> Rival:
    r"""The same layers, of widths cut to one share of each before anything is learnt.

    Which units stay is drawn at random: before learning they are all alike. What reads n of N units has its
    weights multiplied by :math:`\sqrt{N/n}`, so that what a layer says is as large as in the whole network.

    Args:
        fresh: the model anew, under another seed of its first weights; left alone.
        plan: of the fit.
        limit: what it may cost. The widest network is taken that does not cost more.

    Raises:
        SelectionError: even one unit in each group costs more.
        NothingToGateError: it has no units but its inputs.
        SettingsError, DivergedError, DataError, LikelihoodError: as ``dense``.
    """
    _check_whole(fresh)
    model = _by_width(fresh, plan)
    _narrow_(model, _masks(model, RandomNodes(), limit, plan.seed))
    return _learnt(model, plan)


def magnitude(gated: GatedModel, plan: Plan, limit: Limit) -> Rival:
    """The whole network for half of the steps, cut once by the norms of its units, and the rest of the steps.

    Args:
        gated: as for ``dense``; left alone.
        plan: of the fit.
        limit: what it may cost after the cut. Of each group the same share stays, and of all such networks
            the largest is taken that does not cost more.

    Raises:
        SelectionError, NothingToGateError, SettingsError, DivergedError, DataError, LikelihoodError: as
            ``small_dense``.
    """
    _check_whole(gated)
    model = _by_width(gated, plan)
    _masks(model, Magnitude(), limit, plan.seed)  # complains now, not after half of the training
    return _learnt(model, plan, cut=lambda: _masks(model, Magnitude(), limit, plan.seed))


# ---- models without gates


def _check_whole(gated: GatedModel) -> None:
    check_model(gated)
    if not bool(gated.alive.all()):
        raise SettingsError(
            f"{int((~gated.alive).sum())} units were removed from this model: compare with what gate() "
            "returned, before fit()."
        )


def _opened(gated: GatedModel) -> GatedModel:
    """A copy whose gates nobody asks, and whose weights are points."""
    model = copy_of(gated)
    model.weights, model.unit_noise = _points(gated.weights), {}
    model.log_scales = nn.ParameterDict()
    return model


def _points(weights: NormalWeights) -> NormalWeights:
    return replace(weights, posterior="delta", masked=False)


def _by_width(gated: GatedModel, plan: Plan) -> GatedModel:
    """The same network with its widths alone as groups: inputs and sections stay whole."""
    batches = Batches(plan.train, plan.batch_size, torch.device("cpu"), plan.seed, form=gated.form)
    x, _ = next(batches.epoch(0))
    prior = BernoulliGates(Flattening(price=1.0))  # never asked
    weights, likelihood = _points(gated.weights), copy_of(gated.likelihood)
    network = gated.network.plain()
    return gate(
        network, x[:1], prior=prior, likelihood=likelihood, weights=weights, layers="none", inputs=False
    )


def _masks(model: GatedModel, rule: Scored, limit: Limit, seed: int) -> Masks:
    """The largest network of a rule's family that is within a limit; of each group the same share."""
    subject = Subject.of(model)
    family = rule.family(subject, "layer", seed)
    size = subject.macs if limit.what == "macs" else subject.parameters
    masks = largest(family, size, limit.most)
    if masks is None:
        raise SelectionError(
            f"Widths cannot be cut evenly to {limit.most:,} {_name(limit.what)}: one unit in every group "
            f"still makes {size(family.at(0)):,}, since inputs and whole sections stay. Compare with a "
            "pruned network that is larger."
        )
    return subject.closed(masks)


def _name(what: Cost) -> str:
    return "MACs" if what == "macs" else what


def _cut_(model: GatedModel, masks: Masks, optimiser: torch.optim.Optimizer | None = None) -> None:
    alive = torch.cat([masks[group.name] for group in model.groups])
    model.remove_(~alive.to(model.log_odds.device), optimiser)


def _narrow_(model: GatedModel, masks: Masks) -> None:
    """Cut before anything is learnt: what is left says as much as the whole, at the same variances."""
    before = {name: parameter.shape for name, parameter in model.network.named_parameters()}
    weights = model.network.weight_names()
    read = {(slot.tensor, slot.dim) for slot in model.network.slots if slot.reads and slot.dim != WHOLE}
    _cut_(model, masks)
    for name, parameter in model.network.named_parameters():
        for dim, size in enumerate(parameter.shape):
            if name in weights and (name, dim) in read:
                parameter.data.mul_(math.sqrt(before[name][dim] / size))


# ---- learning


def _learnt(model: GatedModel, plan: Plan, cut: Callable[[], Masks] | None = None) -> Rival:
    """Learn a model's weights by a plain loop.

    Args:
        model: is moved in place; its gates are open.
        plan: of the fit.
        cut: what stays after half of the steps; None for no cut.
    """
    where = device_of(plan.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)  # of dropout and its like, as in fit
        model.to(where)
        batches = Batches(plan.train, plan.batch_size, where, plan.seed, form=model.form)
        check_rows(model, batches)
        batches.teach_(model.likelihood)
        start_in_own_unit_(model, batches)
        threads = threads_for(model.dense_macs, batches.batch_size)
        with using_threads(threads) if where.type == "cpu" else nullcontext(), _denormals_as_zero():
            began = time.perf_counter(), time.process_time()
            _Loop(model, batches, plan, cut).run_()
            seconds, processor = time.perf_counter() - began[0], time.process_time() - began[1]
    model.to("cpu").eval()
    model.likelihood.fitted = True
    network = model.network.plain().eval()
    parameters = sum(p.numel() for p in network.parameters())
    return Rival(network, model.likelihood, parameters, model.network.macs(), seconds, processor)


@contextmanager
def _denormals_as_zero() -> Iterator[None]:
    """Numbers below 1e-38 are zero for a while: a processor is many times slower at them.

    Weights of inputs that are always zero decay until they are such numbers, with their moments, and a whole
    network of them took three times as long as it does here. That would flatter whoever removes them.
    """
    already = float(torch.full((), 1e-38) * 0.01) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


class _Loop:
    """Passes over the rows, with nothing but an optimiser's steps.

    Args:
        model: its network is learnt.
        batches: of the rows.
        plan: of the fit.
        cut: as for ``_learnt``.
    """

    def __init__(
        self, model: GatedModel, batches: Batches, plan: Plan, cut: Callable[[], Masks] | None
    ) -> None:
        self.model, self.batches, self.plan, self.cut = model, batches, plan, cut
        self.steps = batches.steps * plan.epochs
        self.schedule = Schedule(plan.recipe, self.steps)
        self.turn = self.steps // 2 if cut else self.schedule.decide  # from here on the rate falls
        self.optimiser = adam(model, self.schedule.rate)
        self.average: dict[str, Tensor] = {}
        self.averaged = 0

    def run_(self) -> None:
        """All steps."""
        self.model.train()
        loss = torch.zeros(())
        for step, (x, y) in enumerate(self._passes()):
            if step == self.turn:
                self._turn_()
            loss = self._step(step, x, y)
        if not bool(torch.isfinite(loss)):
            raise DivergedError(f"The loss became {float(loss)} by step {self.steps}. Lower learning_rate.")
        self._finish_()

    def _passes(self) -> Iterator[Pair]:
        return itertools.chain.from_iterable(self.batches.epoch(number) for number in range(self.plan.epochs))

    def _step(self, step: int, x: Any, y: Tensor) -> Tensor:
        turned = self.turn if step >= self.turn else None
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.learning_rate(step, turned)
        likelihood = self.model.likelihood
        y = likelihood.taught(x, y)
        loss = likelihood.nll(self.model.network(x), y).mean()
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        likelihood.follow_(y, min(max(round(likelihood.rows / len(y)), 10), 100))
        if self.schedule.averages(step, turned):
            self._average_()
        return loss.detach()

    def _turn_(self) -> None:
        """Cut, where there is something to cut, and take up the prior of the weights from now on."""
        if self.cut is not None:
            _cut_(self.model, self.cut(), self.optimiser)
        scale, moments = self.plan.recipe.compact_scale, self.optimiser.state
        if scale != 1.0:
            self.model.weights = self.model.weights.scaled(scale)
        self.optimiser = adam(self.model, self.schedule.rate)
        self.optimiser.state.update({p: s for p, s in moments.items() if s})

    def _average_(self) -> None:
        self.averaged += 1
        for name, parameter in self.model.network.named_parameters():
            if name not in self.average:
                self.average[name] = parameter.detach().clone()
            else:
                self.average[name].lerp_(parameter.detach(), 1 / self.averaged)

    def _finish_(self) -> None:
        """Put averaged weights in place, and take the statistics of batch normalisation afresh."""
        if not self.average:
            return
        for name, parameter in self.model.network.named_parameters():
            parameter.data.copy_(self.average[name])
        self.model.network.eval().renormalise_(x for x, _ in self.batches.epoch(0))
