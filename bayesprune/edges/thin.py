"""prune_edges(): edges go while the small network learns, and units that nobody reads any more with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bayesprune.baseline.loop import plain_step_
from bayesprune.baseline.widths import opened
from bayesprune.errors import DivergedError, RemovalError, SelectionError, SettingsError
from bayesprune.gated import GatedModel
from bayesprune.gated.precision import refuse_autocast, refuse_no_grad
from bayesprune.likelihoods import Likelihood
from bayesprune.ranges import check_seed
from bayesprune.rows import Rows, rows_from, run
from bayesprune.selection import EdgeRule, MagnitudeEdges, Subject
from bayesprune.selection.masks import Masks
from bayesprune.structure.copying import copy_of
from bayesprune.structure.groups import WHOLE
from bayesprune.svi.batches import Batches, Train
from bayesprune.svi.checks import check_rows, check_validation, device_of
from bayesprune.svi.evaluate import quality
from bayesprune.svi.optimisers import adam
from bayesprune.svi.progress import Progress
from bayesprune.svi.result import FitResult, pruned
from bayesprune.svi.subnormals import subnormals_as_zero
from bayesprune.svi.threads import threads_for, using_threads


@dataclass(frozen=True, eq=False)
class Thinned:
    """A network of few edges.

    Attributes:
        network: plain PyTorch, on the CPU, in eval mode; edges that went are zeros in its weights.
        likelihood: to score it by.
        masks: weight's name → (its shape) bool, the edges of ``network`` that stay.
        parameters: of the network, without the zeros that ``masks`` put there.
        dense_parameters: before any unit was removed.
        kept: group → units that are left.
        scores: on the validation rows after each epoch; empty without them.
        counts: parameters without zeros after each epoch.
    """

    network: nn.Module = field(repr=False)
    likelihood: Likelihood = field(repr=False)
    masks: Masks = field(repr=False)
    parameters: int
    dense_parameters: int
    kept: Mapping[str, int]
    scores: tuple[float, ...] = field(default=(), repr=False)
    counts: tuple[int, ...] = field(default=(), repr=False)

    @property
    def share(self) -> float:
        """Of the dense network's parameters."""
        return self.parameters / self.dense_parameters

    @property
    def edges(self) -> int:
        """Weights that are left."""
        return sum(int(mask.sum()) for mask in self.masks.values())


def prune_edges(
    result: FitResult | GatedModel,
    train: Train,
    *,
    share: float | None = None,
    parameters: int | None = None,
    rule: EdgeRule | None = None,
    likelihood: Likelihood | None = None,
    epochs: int = 40,
    batch_size: int | None = None,
    learning_rate: float = 2e-3,
    until: float = 0.6,
    every: int = 100,
    weight_scale: float = 1.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
    validation: Train | None = None,
    progress: bool = True,
) -> Thinned:
    r"""Let a fitted network go on learning while single weights are set to zero for good.

    Of E edges and step t of T the rule's best

    .. math:: k(t) = E^* + (E - E^*) \left(1 - \frac{t}{\tau T}\right)^3, \quad t \le \tau T

    stay (Zhu & Gupta 2017, "To prune, or not to prune", arXiv 1710.01878), E* of them from τT on, at a
    constant learning rate, which then falls along half a cosine. Edges that went do not come back. At the end
    units of which no reader has an edge left are removed, which changes no output. Gates are decided before:
    the network is the median-probability model of what is given, its weights are points under their Gaussian
    prior (1/(rows · s²) is Adam's decay), and units have no noise.

    Args:
        result: what ``fit`` returned, or a gated model; left alone.
        train: rows to learn from, as ``fit`` takes them.
        share: of the dense network's parameters that are left, biases among them, zeros not, in (0, 1].
        parameters: the same as a number. One of the two is needed.
        rule: which edges go first, over all layers together: ``MagnitudeEdges()`` by default, or
            ``RandomEdges()``, or one of your own.
        likelihood: to learn under; by default that of the fit.
            ``bp.Distilled(result.likelihood.plain, teacher)`` listens to a teacher.
        epochs: passes over the rows.
        batch_size: rows of a step, 128 by default; a DataLoader has its own.
        learning_rate: of Adam, until edges have gone.
        until: τ, the share of the steps over which edges go, in (0, 1).
        every: steps from one look at the edges to the next.
        weight_scale: factor on the weights' prior standard deviation: of many edges the few that stay are
            larger ones.
        seed: of the order of rows, and of a random rule.
        device: where it runs.
        validation: rows that every epoch is scored on; they steer nothing.
        progress: show a progress bar on stderr.

    Raises:
        SelectionError: both sizes or none, a size that is out of range, more than there are, or too small for
            an edge in every weight; or a rule that does not score edges.
        SettingsError: another setting out of range.
        DivergedError: the loss is not finite.
        DataError, LikelihoodError: as ``fit``.

    Example:
        >>> import bayesprune as bp
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(64, 4), torch.randint(3, (64,))
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> gated = bp.gate(network, x[:2], prior=bp.Budget(params=1.0), likelihood=bp.Categorical(rows=64))
        >>> few = bp.prune_edges(gated, (x, y), parameters=31, epochs=2, every=1, progress=False)
        >>> few.parameters <= few.counts[-1] == 31  # units that nobody reads take their edges along
        True
    """
    course = _Course(epochs, learning_rate, until, every, weight_scale, seed)
    if not isinstance(result, FitResult | GatedModel):
        raise SettingsError(
            f"prune_edges takes what fit returned, or a gated model, and got a {type(result).__name__}: "
            "gate a plain network first, bp.gate(...)."
        )
    if dist.is_initialized() and dist.get_world_size() > 1:
        raise SettingsError("prune_edges learns in one process: give the command without torchrun.")
    rule = MagnitudeEdges() if rule is None else rule
    if not isinstance(rule, EdgeRule):
        raise SelectionError(
            f"prune_edges(rule={rule!r}): a rule that scores single weights, an EdgeRule such as "
            "bp.selection.MagnitudeEdges()."
        )
    where = device_of(device)
    refuse_autocast("prune_edges", where.type)
    refuse_no_grad("prune_edges")
    model = opened(pruned(result))
    if likelihood is not None:
        model.likelihood = copy_of(likelihood)
    model.weights = model.weights.scaled(weight_scale)
    goal = _goal(Subject.of(model), share, parameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.to(where)
        batches = Batches(train, batch_size, where, seed, form=model.form)
        check_rows(model, batches)
        batches.teach_(model.likelihood)
        held_out = None
        if validation is not None:
            held_out = rows_from(validation, "validation", form=model.form)
            check_validation(model, held_out)
        threads = threads_for(model.dense_macs, batches.batch_size)
        with using_threads(threads) if where.type == "cpu" else nullcontext(), subnormals_as_zero():
            loop = _Loop(model, batches, rule, goal, course, held_out)
            loop.run_(progress)
            return loop.thinned()


@dataclass(frozen=True)
class _Course:
    """How edges go; see ``prune_edges``."""

    epochs: int
    learning_rate: float
    until: float
    every: int
    weight_scale: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("epochs", "every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingsError(f"prune_edges({name}={value!r}): a whole number, at least 1.")
        for name, most in (("learning_rate", math.inf), ("weight_scale", math.inf), ("until", 1.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < most:
                above = "" if most == math.inf else f" and below {most:g}"
                raise SettingsError(f"prune_edges({name}={value!r}): a number above 0{above}.")
        check_seed(self.seed, SettingsError)

    def turn(self, steps: int) -> int:
        """The step before which the last edges go: there is always one after it."""
        return min(max(1, round(self.until * steps)), steps - 1)


class _Loop:
    """Passes over the rows, with fewer edges from look to look."""

    def __init__(
        self,
        model: GatedModel,
        batches: Batches,
        rule: EdgeRule,
        goal: int,
        course: _Course,
        validation: Rows | None = None,
    ) -> None:
        self.model, self.batches, self.rule, self.course = model, batches, rule, course
        self.validation = validation
        self.steps = course.epochs * batches.steps
        self.turn = course.turn(self.steps)
        names = Subject.of(model).weights()
        self.weights = {n: p for n, p in model.network.named_parameters() if n in names}
        self.masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in self.weights.items()}
        self.all = sum(p.numel() for p in self.weights.values())
        self.rest = sum(p.numel() for p in model.network.parameters()) - self.all
        self.goal = goal - self.rest  # edges that are to stay
        self.optimiser = adam(model, course.learning_rate)
        self.scores: list[float] = []
        self.counts: list[int] = []

    def run_(self, progress: bool) -> None:
        """All steps."""
        self.model.train()
        bar, step, loss = Progress(self.steps, 0, progress, "edges"), 0, torch.zeros(())
        try:
            for epoch in range(self.course.epochs):
                for x, y in self.batches.epoch(epoch):
                    if step <= self.turn and (step % self.course.every == 0 or step == self.turn):
                        self._cut_(self._edges_at(step))
                    loss = self._step(step, x, y)
                    step += 1
                    bar.advance()
                if not bool(torch.isfinite(loss)):
                    raise DivergedError(f"The loss became {float(loss)} by step {step}. Lower learning_rate.")
                self.counts.append(self.rest + sum(int(mask.sum()) for mask in self.masks.values()))
                if self.validation is not None:
                    with torch.random.fork_rng(devices=[]):
                        score = quality(self.model.network, self.validation, self.model.likelihood).score
                    self.scores.append(score)
                    self.model.train()
        finally:
            bar.close()

    def _edges_at(self, step: int) -> int:
        left = 1 - step / self.turn if step < self.turn else 0.0
        return self.goal + round((self.all - self.goal) * left**3)

    def _step(self, step: int, x: Any, y: Tensor) -> Tensor:
        rate = self.course.learning_rate
        if step >= self.turn:
            rate *= 0.5 * (1 + math.cos(math.pi * (step - self.turn) / max(1, self.steps - self.turn)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = plain_step_(self.model, self.optimiser, x, y)
        with torch.no_grad():
            for name, mask in self.masks.items():
                self.weights[name].mul_(mask)
        return loss

    @torch.no_grad()
    def _cut_(self, count: int) -> None:
        """Let the rule's best edges stay, of those that are there; of every weight one at the least."""
        if count >= sum(int(mask.sum()) for mask in self.masks.values()):
            return
        scores = self.rule.edge_scores(Subject.of(self.model), self.course.seed)
        self._check_scores(scores)
        flat = []
        for name, mask in self.masks.items():
            own = scores[name].detach().double().cpu().flatten()
            own = own.masked_fill(~mask.cpu().flatten(), -math.inf)
            own[own.argmax()] = math.inf
            flat.append(own)
        stay = torch.zeros(self.all, dtype=torch.bool)
        stay[torch.cat(flat).argsort(descending=True, stable=True)[:count]] = True
        for (name, mask), part in zip(self.masks.items(), stay.split([len(f) for f in flat]), strict=True):
            mask &= part.reshape(mask.shape).to(mask.device)
            self.weights[name].mul_(mask)

    def _check_scores(self, scores: Mapping[str, Tensor]) -> None:
        wrong = [
            f"{name!r} ({'no scores' if name not in scores else 'not finite, or of another shape'})"
            for name, mask in self.masks.items()
            if name not in scores
            or scores[name].shape != mask.shape
            or not bool(torch.isfinite(scores[name]).all())
        ]
        if wrong:
            raise SelectionError(
                f"{self.rule.name}.edge_scores must give a finite number for every edge of every weight, and "
                f"does not of {', '.join(wrong)}."
            )

    def thinned(self) -> Thinned:
        """What came of it, without the units that nobody reads."""
        model = self.model.eval()
        model.likelihood.fitted = True
        kept, unread = copy_of(model), _unread(model)
        if bool(unread.any()):
            kept.remove_(unread.to(kept.log_odds.device))
            _check_equal(model, kept, self.batches)
        kept, model = kept.to("cpu"), model.to("cpu")
        weights = {n: p.detach() for n, p in kept.network.named_parameters() if n in self.masks}
        masks = {name: weight != 0 for name, weight in weights.items()}
        others = kept.network.parameter_count() - sum(w.numel() for w in weights.values())
        return Thinned(
            network=kept.network.plain().eval(),
            likelihood=model.likelihood,
            masks=masks,
            parameters=others + sum(int(mask.sum()) for mask in masks.values()),
            dense_parameters=model.dense_parameters,
            kept=kept.kept(),
            scores=tuple(self.scores),
            counts=tuple(self.counts),
        )


def _unread(model: GatedModel) -> Tensor:
    """(units of all groups,), bool: units of which all readers' columns are zero."""
    tensors = dict(model.network.named_parameters())
    seen: dict[str, Tensor] = {}
    readers: dict[str, bool] = {}
    sizes = {group.name: group.size for group in model.groups}
    for slot in model.network.slots:
        if not slot.reads or slot.dim == WHOLE:
            continue
        ids = slot.unit_ids
        used = seen.setdefault(slot.group, torch.zeros(sizes[slot.group], dtype=torch.bool))
        readers[slot.group] = readers.get(slot.group, True) and slot.tensor in tensors
        if slot.tensor in tensors:
            weight = tensors[slot.tensor].detach().cpu()
            columns = (weight != 0).movedim(slot.dim, 0).flatten(1).any(1)
            used[ids[columns & (ids >= 0)]] = True
    alive = {name: mask.cpu() for name, mask in model.by_group(model.alive).items()}
    unread = []
    for group in model.groups:
        known = readers.get(group.name, False) and not group.optional
        gone = ~seen[group.name] & alive[group.name] if known else torch.zeros(group.size, dtype=torch.bool)
        if known and not bool((alive[group.name] & ~gone).any()):
            gone[alive[group.name].nonzero()[0]] = False  # a layer without units would be no network
        unread.append(gone)
    return torch.cat(unread)


@torch.no_grad()
def _check_equal(model: GatedModel, cut: GatedModel, batches: Batches) -> None:
    """Removal of what nobody reads changes nothing."""
    x, _ = next(batches.epoch(0))
    model.eval(), cut.eval()
    before, after = run(model.network, x), run(cut.network, x)
    scale = 1 + float(before.abs().max())
    if not bool(((before - after).abs() <= 1e-4 * scale).all()):
        raise RemovalError(
            "Units without readers were removed, and outputs moved by up to "
            f"{float((before - after).abs().max()):.2g}: this network cannot be thinned exactly."
        )


def _goal(subject: Subject, share: float | None, parameters: int | None) -> int:
    if (share is None) == (parameters is None):
        raise SelectionError(f"share={share!r} and parameters={parameters!r}: give one of them.")
    if share is not None:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise SelectionError(f"share={share!r}: a share of the dense network's parameters, in (0, 1].")
        parameters = math.floor(share * subject.dense_parameters)
    if isinstance(parameters, bool) or not isinstance(parameters, int) or parameters < 1:
        raise SelectionError(f"parameters={parameters!r}: a whole number, at least 1.")
    total = sum(p.numel() for p in subject.network.parameters())
    weights = subject.weights()
    least = total - sum(w.numel() for w in weights.values()) + len(weights)
    if not least <= parameters <= total:
        raise SelectionError(
            f"{parameters:,} parameters are asked for: the fitted network has {total:,}, and {least:,} with"
            " one edge in each weight (biases stay). Ask for a number between, or for fewer units first."
        )
    return parameters
