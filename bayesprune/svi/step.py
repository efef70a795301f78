"""One step of the inference: a batch in, weights and gates moved, what happened out.

The likelihood runs through the network once, with the gates as an estimator draws them; the prior of
recognised gates is differentiated in closed form, any other by Pyro's traces; the weights' Gaussian prior is
the weight decay of the default Adam, and is added to the gradients of any other optimiser.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import SettingsError
from bayesprune.gated import GatedModel
from bayesprune.gated.fold import follow_
from bayesprune.gated.precision import refuse_autocast, refuse_no_grad
from bayesprune.priors import ContinuousGuide, LinkedGates
from bayesprune.rows import Inputs, Pair
from bayesprune.svi.bits import uniform_factors
from bayesprune.svi.estimators import ARM, Concrete, Estimate, GateProblem, find_estimator
from bayesprune.svi.estimators.problem import Factor, backward
from bayesprune.svi.mirror import link_step_, mirror_step
from bayesprune.svi.objective import gate_nats, row_share, weight_divergence
from bayesprune.svi.optimisers import Together, adam, add_prior_gradient_, decays, forget_, moved
from bayesprune.svi.processes import Processes
from bayesprune.svi.schedule import TUNED_STEPS, Schedule
from bayesprune.svi.settings import Recipe
from bayesprune.svi.weight_noise import WeightNoise

Batch = Pair


@dataclass(frozen=True)
class State:
    """What a step carries to the next; weights and Adam's moments live in the engine, and change in place.

    Attributes:
        step: steps taken.
        velocity: (units of all groups,), smoothed gradient of the log-odds, nats.
        prior_weight: factor on the gates' prior, 0 to 1: it ramps up.
        moving: whether the gates move; they do not in the warm-up.
        decided: whether all gates are at a vertex, and none is drawn any more.
    """

    step: int
    velocity: Tensor
    prior_weight: float = 1.0
    moving: bool = True
    decided: bool = False


@dataclass(frozen=True)
class Info:
    """What a step saw.

    Attributes:
        nll: scalar, mean negative log-likelihood of the batch's rows under the drawn gates, nats, on the
            device.
        moved: whether the gates moved.
    """

    nll: Tensor
    moved: bool


@dataclass(eq=False)
class _Opened:
    """A batch whose loss has been handed out, and may have been differentiated.

    Attributes:
        estimate: of the batch; its loss is let go once it is not needed.
        nll: scalar, detached.
        targets: (rows, ...).
        factors: what the loss was multiplied by on its way back, once for every backward pass.
    """

    estimate: Estimate
    nll: Tensor
    targets: Tensor
    factors: list[Factor]

    @property
    def rows(self) -> int:
        return len(self.targets)

    def factor(self) -> Factor:
        """What the loss was multiplied by; a number where that costs no look at the device."""
        if not self.factors:
            raise SettingsError(
                "A step is to be taken, and a loss was not differentiated: call loss.backward() on what "
                "training.loss(batch) returned, before training.step()."
            )
        total = self.factors[0]
        for further in self.factors[1:]:
            total = total + further
        return float(total) if isinstance(total, Tensor) and total.device.type == "cpu" else total


@dataclass(frozen=True)
class _Seen:
    """What the batches of a step say together, in all processes.

    Attributes:
        nll: scalar, mean negative log-likelihood of a row, nats.
        gradient: (living units,), of the gates, or None.
        rows: how many.
        batches: of this process.
    """

    nll: Tensor
    gradient: Tensor | None
    rows: int
    batches: int


class _Handed(torch.autograd.Function):
    """The identity, which says what its output is multiplied by before it is differentiated."""

    @staticmethod
    def forward(ctx: Any, nll: Tensor, told: Callable[[Factor], None]) -> Tensor:
        ctx.told = told
        return nll.view_as(nll)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        ctx.told(slopes[0].detach())
        return slopes[0], None


class Engine:
    """The fused inference for one gated model.

    A step has two halves: ``loss`` runs a batch forward, whoever called differentiates, ``advance`` moves.
    Between them lie further batches, scales of a loss, norms of gradients, as the caller likes.

    Args:
        gated: the model; its parameters are moved in place.
        recipe: the settings.
        seed: of the gates' noise.
        schedule: of the training that the steps are part of; without one the pace is that of 18,720 steps.
        optimizer: of the weights; by default fused Adam at the schedule's rate, which holds their prior as
            its decay. What a user's does not hold of prior, guide and likelihood is moved by an Adam.
        processes: that train together, or None.

    Raises:
        SettingsError: an estimator that needs losses of single rows, and a likelihood that has none.

    Example:
        >>> import bayesprune as bp
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))
        >>> gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=100))
        >>> engine = Engine(gated, Recipe(), seed=0)
        >>> state = engine.init()
        >>> state, info = engine.step(state, (torch.randn(16, 4), torch.randint(3, (16,))))
        >>> state.step
        1
    """

    def __init__(
        self,
        gated: GatedModel,
        recipe: Recipe,
        seed: int = 0,
        schedule: Schedule | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.processes = processes
        self._joined: _Seen | None = None
        self.gated, self.schedule = gated, schedule or Schedule(recipe, TUNED_STEPS)
        self.gates = self.schedule.gates
        self.estimator = find_estimator(recipe.estimator)
        if not gated.likelihood.by_row and getattr(self.estimator, "of_rows", False):
            name = type(gated.likelihood).__name__
            raise SettingsError(
                f"estimator={recipe.estimator!r} weighs every row's gates by that row's loss, and {name} has "
                "one loss for a batch: take Recipe(estimator='straight_through'), 'second_order', 'curved' "
                "or 'concrete', or a likelihood that reads outputs, as bp.Categorical(output='logits')."
            )
        if gated.guides:
            _check_linked(recipe.estimator, self.estimator)
        self.device = gated.log_odds.device
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.is_default = optimizer is None
        self.optimiser = optimizer or adam(gated, self.schedule.rate)
        self._weight_noise = WeightNoise(gated, self.generator)
        self._sizes = torch.tensor([group.size for group in gated.groups], device=self.device)
        self._opened: list[_Opened] = []
        self._linked: dict[str, LinkedGates] = {}
        self._seen: Tensor | None = None
        self._live: dict[str, tuple[ContinuousGuide, Tensor]] = {}
        self._learns = False
        self.held: Tensor | None = None  # (units of all groups,), gates that stay as they are
        self._still: list[nn.Parameter] = []
        self._look()
        self.weigh_()

    def init(self) -> State:
        """The first state."""
        return State(step=0, velocity=torch.zeros_like(self.gated.log_odds.data))

    def step(self, state: State, batch: Batch) -> tuple[State, Info]:
        """Move weights, and every few steps gates, along the gradient of one batch.

        Args:
            state: what the last step returned.
            batch: inputs (rows, ...) and targets.

        Returns:
            The next state, and what was seen.

        Raises:
            SettingsError: ``torch.autocast``, or a mode without gradients, is on around it.
        """
        refuse_autocast("A training step", self.device.type)
        backward(self.loss(state, batch, unscaled=True))
        return self.advance(state)

    def loss(self, state: State, batch: Batch, unscaled: bool = False) -> Tensor:
        """Run a batch forward, with gates as the estimator draws them.

        Args:
            state: what the last step returned.
            batch: inputs (rows, ...) and targets.
            unscaled: whether the caller differentiates just what is returned, and once.

        Returns:
            Scalar, mean negative log-likelihood of a row, nats, to be differentiated before ``advance``.

        Raises:
            SettingsError: a mode without gradients is on around it.
        """
        refuse_no_grad("A training step")
        self._look()
        self._learns = state.moving
        x, y = batch[0], self.gated.likelihood.taught(*batch)
        if state.decided or not self._switches:
            estimate = Estimate(self._nll(x, y, self._noise(len(x), {}, {})).mean(), None)
        else:
            estimate = self.estimator(self._problem(x, y), self._moves(state))
        nll = estimate.nll
        opened = _Opened(estimate, nll.detach(), y, [])
        self._opened.append(opened)
        if unscaled:
            opened.factors.append(1.0)
            return nll
        if not nll.requires_grad:  # frozen weights, gates at rest: nothing to learn, but loops differentiate
            nll = nll.detach().requires_grad_()
        told = partial(self._begin_backward_, weakref.ref(opened))  # a loss that is held, holds no batch
        handed: Tensor = _Handed.apply(nll, told)  # type: ignore[no-untyped-call]
        return handed

    def _begin_backward_(self, reference: weakref.ref[_Opened], factor: Factor) -> None:
        """A batch is about to be differentiated. Where gradients were set to None since the batches before it
        were, these belong to a step that their owner has left out, as by a GradScaler that others call.
        """
        opened = reference()
        if opened is None or opened not in self._opened:
            return
        before = self._opened[: self._opened.index(opened)]
        if before and not self._still and self._without_gradients():
            gone = [other for other in before if other.factors]
            self._opened = [other for other in self._opened if all(other is not one for one in gone)]
            self._joined = None
        opened.factors.append(factor)

    def _without_gradients(self) -> bool:
        learnt = [p for group in self.optimiser.param_groups for p in group["params"] if p.requires_grad]
        return bool(learnt) and all(p.grad is None for p in learnt)

    def advance(self, state: State) -> tuple[State, Info]:
        """Move weights, and every few steps gates, along the gradients that lie in ``.grad``.

        Args:
            state: what the last step returned.

        Returns:
            The next state, and what was seen.

        Raises:
            SettingsError: no loss was taken, or one was not differentiated.
        """
        ready = self.prepare(state)
        self.optimiser.step()
        return self.conclude(state, ready)

    # ---- a step in parts, for optimisers that others call

    @property
    def opened(self) -> int:
        """Batches whose loss was handed out since the last step."""
        return len(self._opened)

    @property
    def rows(self) -> int:
        """Rows of these batches; in all processes, once ``gather_`` was called."""
        return self._joined.rows if self._joined else sum(o.rows for o in self._opened)

    @property
    def gathered(self) -> bool:
        """Whether ``gather_`` was called since the last step."""
        return self._joined is not None

    def factor(self) -> float:
        """What the losses of this step were multiplied by, added up: 1 where gradients are a mean's."""
        return sum(float(o.factor()) for o in self._opened)

    def drop_(self) -> None:
        """Forget the batches of a step that is not taken, and their gradients."""
        self._opened.clear()
        self._joined = None
        self.optimiser.zero_grad(set_to_none=True)
        if self.beside is not None:
            self.beside.zero_grad(set_to_none=True)

    def gather_(self, state: State) -> None:
        """Put together what the batches of a step say; over all processes, whose gradients are averaged.

        Args:
            state: what the last step returned.

        Raises:
            SettingsError: no loss was taken, or one was not differentiated.
            ProcessError: another process is elsewhere.
        """
        if not self._opened:
            raise SettingsError(
                "A step is to be taken, and no loss was: call training.loss(batch), and differentiate it."
            )
        if self._joined is not None:
            self._check_joined(self._joined)
            return
        rows = self.rows
        share = [o.rows / rows for o in self._opened]
        nll = self._opened[0].nll
        if self.opened > 1:
            nll = torch.stack([s * o.nll for s, o in zip(share, self._opened, strict=True)]).sum()
        reads = [(o.estimate.gate_gradient, o.factor()) for o in self._opened]
        gradients = [s * read(factor) for s, (read, factor) in zip(share, reads, strict=True) if read]
        gradient = None
        if gradients:
            gradient = gradients[0] if len(gradients) == 1 else torch.stack(gradients).sum(0)
        if self.processes is not None:
            nll, gradient, rows = self.processes.average_(self.gated, state.step, rows, nll, gradient)
        self._joined = _Seen(nll, gradient, rows, self.opened)

    def _check_joined(self, joined: _Seen) -> None:
        if joined.batches != self.opened:
            raise SettingsError(
                f"Gradients were averaged over {joined.batches} batches, and {self.opened} were taken for "
                "this step: call training.reduce() once all batches of a step are differentiated."
            )

    def prepare(self, state: State, scale: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Before the optimiser steps: priors of weights, then gates, and slopes of what their prior learns.

        Args:
            state: what the last step returned.
            scale: what gradients are multiplied by, where a GradScaler has done so and not yet undone it.

        Returns:
            Scalar, the mean negative log-likelihood of a row; and the velocity of the gates where they have
            moved.
        """
        self.gather_(state)
        assert self._joined is not None
        if self.gated.log_scales:
            self._weight_backward(state.step, scale)
        if self._priced:
            add_prior_gradient_(self._priced, scale)
        if self._live and state.moving:
            self._continuous_backward(state, scale)
        velocity = None
        if self._joined.gradient is not None:
            velocity = self._move_gates(state, self._joined.gradient)
        elif self._hyper and state.decided and state.step % self.gates.every == 0:
            self._prior_slope()
        return self._joined.nll, velocity

    def conclude(self, state: State, ready: tuple[Tensor, Tensor | None]) -> tuple[State, Info]:
        """After the optimiser's step: what it does not hold, what has a closed form, and the count.

        Args:
            state: what the last step returned.
            ready: of ``prepare``.
        """
        nll, velocity = ready
        if self.beside is not None:
            self.beside.step()
            self.beside.zero_grad(set_to_none=True)
            if self._live and (state.step + 1) % self.schedule.look_every == 0:
                self.gated.follow_continuous_()
        targets = [o.targets for o in self._opened]
        y = targets[0] if len(targets) == 1 else torch.cat(targets)
        self.gated.likelihood.follow_(y, _window(self.gated.likelihood.rows, self.rows))
        self.drop_()
        moved_on = state.velocity if velocity is None else velocity
        return replace(state, step=state.step + 1, velocity=moved_on), Info(nll, velocity is not None)

    # ---- what is learnt

    @property
    def frozen(self) -> bool:
        """Whether the network's weights stand still."""
        return bool(self._still)

    def freeze_(self, frozen: bool) -> None:
        """Let the network's weights stand still, or learn again.

        Args:
            frozen: whether they stand still from now on.
        """
        if frozen and not self._still:
            self._still = [p for p in self.gated.network.parameters() if p.requires_grad]
        for parameter in self._still:
            parameter.requires_grad_(not frozen)
        if not frozen:
            self._still = []

    def weigh_(self) -> None:
        """Find the weights' priors anew, and what the optimiser does not hold: at the start, and where they
        change.
        """
        self._hyper = _hyper_parameters(self.gated)
        self._priced = {} if self.is_default else decays(self.gated)
        self.beside: torch.optim.Optimizer | None = None
        if not self.is_default:
            held = {id(p) for group in self.optimiser.param_groups for p in group["params"]}
            rest = [p for p in moved(self.gated).values() if p.requires_grad and id(p) not in held]
            self.beside = torch.optim.Adam(rest, lr=self.schedule.rate, fused=True) if rest else None
        own = list(self.gated.continuous.parameters())
        if own:
            group = {"params": own, "lr": self.schedule.continuous_rate}
            if self.beside is None:
                self.beside = torch.optim.Adam([group], fused=True)
            else:
                self.beside.add_param_group(group)

    def enter_compact_(self) -> None:
        """Take up that weights have another prior, or scales of their own, from now on."""
        if self.is_default:  # in place: whoever steps it holds this one
            self.optimiser.param_groups[:] = adam(self.gated, self.schedule.rate).param_groups
            for parameter in [p for p, kept in self.optimiser.state.items() if not kept]:
                del self.optimiser.state[parameter]
        self.weigh_()

    def remove_(self, dead: Tensor) -> None:
        """Remove units from the model, and from what the optimisers keep.

        Args:
            dead: (units of all groups,), bool.
        """
        optimisers = [self.optimiser] if self.beside is None else [self.optimiser, self.beside]
        with torch.autocast(self.device.type, enabled=False):  # which keeps copies of weights as they were
            self.gated.remove_(dead, Together(*optimisers))
        torch.clear_autocast_cache()
        for optimiser in optimisers:
            forget_(optimiser, self.gated)
        if not self.is_default:
            self._priced = decays(self.gated)

    def settle_(self) -> None:
        """Put the means of continuous gates into weights, and let what optimisers keep of these go with
        them.
        """
        done = self.gated.settle_continuous_()
        if not done:
            return
        kept = [o.state for o in (self.optimiser, self.beside) if o is not None]
        follow_(self.gated.weight_tensors(), done, kept)
        self._seen = None

    def _moves(self, state: State) -> bool:
        return state.moving and not state.decided and state.step % self.gates.every == 0

    def _look(self) -> None:
        """Which units are alive, where that has changed, and their inclusion probabilities now."""
        if self._seen is not self.gated.alive:
            self._seen = self.gated.alive
            self._units = self.gated.kept()
            self._alive = self.gated.alive.nonzero().squeeze(1)
            self._switches, self._live = self._units, {}
            if self.gated.continuous.priors:
                self._look_at_continuous()
        self._log_odds = self.gated.log_odds.data[self._alive]
        self._probs = torch.sigmoid(self._log_odds)

    def _look_at_continuous(self) -> None:
        """Which living units have gates that are on or off; and the others, by group, with their guide."""
        gated = self.gated
        self._switches = {group.name: self._units[group.name] for group in gated.switches}
        on_or_off, alive, parts = gated.alive.clone(), gated.by_group(gated.alive), gated.slices()
        for name in gated.continuous.priors:
            on_or_off[parts[name]] = False
        self._alive = on_or_off.nonzero().squeeze(1)
        live = gated.continuous.live.items()
        self._live = {name: (q, alive[name].nonzero().squeeze(1)) for name, q in live}

    # ---- the likelihood

    def _problem(self, x: Inputs, y: Tensor) -> GateProblem:
        def nll(gates: Mapping[str, Tensor], factors: Mapping[str, Tensor] | None = None) -> Tensor:
            return self._nll(x, y, self._noise(len(x), gates, factors or {}))

        noise, linked = self.gated.unit_noise, self._linked_living() if self.gated.guides else {}
        return GateProblem(
            nll, self._probs, self._log_odds, self._switches, len(x), self.generator, noise, linked
        )

    def _linked_living(self) -> dict[str, LinkedGates]:
        """Group → q of its living gates, of the groups whose gates are linked."""
        parts = dict(zip(self._switches, self._probs.split(list(self._switches.values())), strict=True))
        found = {}
        for name, part in self.gated.slices().items():
            links = self.gated.links_of(name)
            if links is None:
                continue
            now, before = links.living(parts[name], self.gated.alive, part), self._linked.get(name)
            found[name] = now if before is None or not before.same(now) else before
        self._linked = found
        return found

    def _nll(self, x: Inputs, y: Tensor, gates: Mapping[str, Tensor]) -> Tensor:
        outputs = self.gated.network(x, gates, self._weight_noise if self.gated.log_scales else None)
        if outputs.dtype in (torch.bfloat16, torch.float16):
            outputs = outputs.float()  # nats of rows add up over a batch
        return self.gated.likelihood.nll(outputs, y)

    def _noise(
        self, rows: int, gates: Mapping[str, Tensor], factors: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Gates times the units' noise, where the model has any: as given, or drawn."""
        noisy = dict(gates)
        for group, scale in self.gated.unit_noise.items():
            factor = factors.get(group)
            if factor is None:
                shape = (rows, self._units[group])
                factor = uniform_factors(shape, scale, self._probs, self.generator)
            gate = noisy.get(group)
            if gate is None:
                noisy[group] = factor
            elif gate.requires_grad or gate.shape != factor.shape:
                noisy[group] = gate * factor
            else:  # a pass over memory fewer
                noisy[group] = factor.mul_(gate)
        for group, (q, units) in self._live.items():
            with torch.set_grad_enabled(self._learns):
                factor = q.sample(rows, units, self.generator)
            noisy[group] = factor * noisy[group] if group in noisy else factor
        return noisy

    # ---- the priors

    def _weight_backward(self, step: int, scale: Tensor | None) -> None:
        """Gradient of the weights' KL per row of the data set, where they have a posterior."""
        gated, total = self.gated, self.gated.log_odds.new_zeros(())
        probs = gated.inclusion_prob().detach()
        weights = gated.weight_tensors()
        for name, log_scale in gated.log_scales_by_tensor().items():
            divergence = weight_divergence(weights[name], log_scale, gated.weight_scale(name))
            total = total + (divergence * row_share(gated, name, probs)).sum()
        total = self.schedule.weights_weight(step) * total / gated.likelihood.rows
        (total if scale is None else total * scale.to(total.device)).backward()

    def _continuous_backward(self, state: State, scale: Tensor | None) -> None:
        """Gradient of the continuous gates' divergence per row of the data set."""
        gated = self.gated
        nats = gated.continuous.nats(gated.by_group(gated.alive))
        total = state.prior_weight * nats / gated.likelihood.rows
        (total if scale is None else total * scale.to(total.device)).backward()

    def _move_gates(self, state: State, gradient: Tensor) -> Tensor:
        gated, slope = self.gated, self._prior_slope()
        gradient, of_links = gradient[: len(self._alive)], gradient[len(self._alive) :]
        full = torch.zeros_like(gated.log_odds.data)
        full[self._alive] = gradient
        full = gated.likelihood.rows * full + state.prior_weight * slope * gated.alive
        velocity, log_odds = mirror_step(
            self.gates, state.velocity, gated.log_odds.data, full, self._typical(slope)
        )
        if gated.pinned is not None:
            log_odds = torch.where(gated.pinned != 0, gated.pinned, log_odds)
            velocity = torch.where(
                gated.pinned != 0, -gated.pinned, velocity
            )  # shut gates go, open ones stay
        if self.held is not None:
            log_odds = torch.where(self.held, gated.log_odds.data, log_odds)
            velocity = velocity.masked_fill(self.held, 0.0)
        gated.log_odds.data.copy_(log_odds)
        if gated.guides:
            self._move_links_(state, of_links, slope)
        return velocity

    @torch.no_grad()
    def _move_links_(self, state: State, gradient: Tensor, slope: Tensor) -> None:
        """A mirror step on the links of gates; and the running slope of the prior, their control variate.

        Args:
            state: for the weight of the prior.
            gradient: what the estimator returned behind the slopes of the living gates.
            slope: (units of all groups,), of the prior's nats in θ.
        """
        gated, typical, probs = self.gated, self._typical(slope), self.gated.inclusion_prob()
        for name, part in gated.slices().items():
            links = gated.links_of(name)
            if links is None:
                continue
            full, alive = [], gated.alive[part]
            for of_prior in self._link_slopes[name]:
                count = len(of_prior) * self._units[name]
                mine, gradient = gradient[:count], gradient[count:]
                whole = state.prior_weight * of_prior
                whole[:, alive] += gated.likelihood.rows * mine.view(-1, self._units[name])
                full.append(whole * alive)
            link_step_(self.gates, links, probs[part], (full[0], full[1]), typical[part])
            links.follow_(slope[part], probs[part], 1 - self.gates.momentum)

    def prices(self) -> Tensor:
        """(units of all groups,), nats that the prior asks for each unit now."""
        slope = self._prior_slope()
        for parameter in self._hyper:
            parameter.grad = None
        return slope.detach().double()

    def _prior_slope(self) -> Tensor:
        """(units of all groups,), ∂(prior's nats)/∂q(z = 1); gradients of hyper-parameters go to
        ``.grad``.
        """
        gated = self.gated
        before = None if self.processes is None else _noise(self.device)
        probs = gated.inclusion_prob().detach().requires_grad_()
        prior = gate_nats(gated, probs)
        if gated.weights.masked:
            prior = prior + self.schedule.recipe.temperature * _slab_nats(gated, probs)
        linked = [gated.links_of(name) for name in gated.guides]
        parts = [part for links in linked if links is not None for part in (links.coupling, links.loading)]
        learnt = [probs, *self._hyper, *parts]
        slopes: Sequence[Tensor | None] = torch.autograd.grad(prior, learnt, allow_unused=True)
        if before is not None and not torch.equal(before, _noise(self.device)):  # this prior draws
            assert self.processes is not None
            slopes = self.processes.mean(slopes)
        for parameter, slope in zip(self._hyper, slopes[1 : 1 + len(self._hyper)], strict=True):
            parameter.grad = slope
        whole = [torch.zeros_like(p) if s is None else s for p, s in zip(learnt, slopes, strict=True)]
        of_links = whole[1 + len(self._hyper) :]
        self._link_slopes = {n: of_links[2 * i : 2 * i + 2] for i, n in enumerate(gated.guides)}
        of_gates = slopes[0]
        if of_gates is None:
            return torch.zeros_like(probs)
        return of_gates if gated.pinned is None else of_gates.masked_fill(gated.pinned != 0, 0.0)

    def _typical(self, slope: Tensor) -> Tensor:
        """(units of all groups,), mean size of the prior's slope over a group's living units, at least a
        nat.
        """
        sizes = slope.abs() * self.gated.alive
        parts = [sizes[part].sum() / max(self._units[name], 1) for name, part in self.gated.slices().items()]
        typical = torch.stack(parts).clamp_min(1.0)
        return typical.repeat_interleave(self._sizes, output_size=len(slope))


def _check_linked(name: Any, estimator: Any) -> None:
    """Gates that are linked are drawn together, which not every estimator's random numbers can be."""
    if isinstance(estimator, ARM | Concrete):
        raise SettingsError(
            f"estimator={name!r} draws gates independently of each other, and this model's guide was asked "
            "to hold their correlation (guide=): take Recipe(estimator='curved'), 'straight_through' or "
            "'second_order'; 'reinforce', which is unbiased; or 'enumeration' for at most a dozen gates."
        )


def _noise(device: torch.device) -> Tensor:
    """The state of the random numbers that a prior would draw from: equal to what it was where none were."""
    own = torch.get_rng_state()
    return own if device.type != "cuda" else torch.cat([own, torch.cuda.get_rng_state(device)])


def _window(rows: int, batch: int) -> int:
    """Steps over which what has a closed form is averaged: those of an epoch, but 10 to 100."""
    return min(max(round(rows / batch), 10), 100)


def _hyper_parameters(gated: GatedModel) -> list[nn.Parameter]:
    """Parameters of the prior and of its hyper-guide that are learnt."""
    own = list(gated.prior.parameters()) if isinstance(gated.prior, nn.Module) else []
    return [p for p in (*own, *gated.default_guide.parameters()) if p.requires_grad]


def _slab_nats(gated: GatedModel, probs: Tensor) -> Tensor:
    """What open units pay for their slab weights, as a function of the inclusion probabilities alone."""
    total, weights = probs.new_zeros(()), gated.weight_tensors()
    for name, log_scale in gated.log_scales_by_tensor().items():
        share = gated.weight_share(name, gated.by_group(probs))
        if share is not None:
            divergence = weight_divergence(weights[name], log_scale, gated.weight_scale(name)).detach()
            total = total + (divergence * share).sum()
    return total
