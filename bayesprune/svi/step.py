"""One step of the inference: a batch in, weights and gates moved, what happened out.

The likelihood runs through the network once, with the gates as an estimator draws them; the prior of
recognised gates is differentiated in closed form, any other by Pyro's traces; the weights' Gaussian prior is
Adam's weight decay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bayesprune.errors import SettingsError
from bayesprune.gated import GatedModel
from bayesprune.gated.precision import refuse_autocast, refuse_no_grad
from bayesprune.rows import Inputs, Pair
from bayesprune.svi.bits import uniform_factors
from bayesprune.svi.estimators import GateProblem, find_estimator
from bayesprune.svi.estimators.problem import backward
from bayesprune.svi.mirror import mirror_step
from bayesprune.svi.objective import gate_nats, row_share, weight_divergence
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


class Engine:
    """The fused inference for one gated model.

    Args:
        gated: the model; its parameters are moved in place.
        recipe: the settings.
        seed: of the gates' noise.
        schedule: of the training that the steps are part of; without one the pace is that of 18,720 steps.

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
        self, gated: GatedModel, recipe: Recipe, seed: int = 0, schedule: Schedule | None = None
    ) -> None:
        schedule = schedule or Schedule(recipe, TUNED_STEPS)
        self.gated = gated
        self.gates = schedule.gates
        self.estimator = find_estimator(recipe.estimator)
        if not gated.likelihood.by_row and getattr(self.estimator, "of_rows", False):
            name = type(gated.likelihood).__name__
            raise SettingsError(
                f"estimator={recipe.estimator!r} weighs every row's gates by that row's loss, and {name} has "
                "one loss for a batch: take Recipe(estimator='straight_through'), 'second_order', 'curved' "
                "or 'concrete', or a likelihood that reads outputs, as bp.Categorical(output='logits')."
            )
        self.device = gated.log_odds.device
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.optimiser = adam(gated, schedule.rate)
        self._weight_noise = WeightNoise(gated, self.generator)
        self._hyper = _hyper_parameters(gated)
        self._sizes = torch.tensor([group.size for group in gated.groups], device=self.device)
        self.forget()

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
        refuse_no_grad("A training step")
        x, y = batch[0], self.gated.likelihood.taught(*batch)
        moves = state.moving and not state.decided and state.step % self.gates.every == 0
        if self.gated.log_scales:
            self._weight_backward()
        if state.decided:
            nll = self._nll(x, y, self._noise(len(x), {}, {})).mean()
            backward(nll)
            nll, gradient = nll.detach(), None
        else:
            estimate = self.estimator(self._problem(x, y), moves)
            nll, gradient = estimate.nll, estimate.gate_gradient
        velocity = state.velocity
        if gradient is not None:
            velocity = self._move_gates(state, gradient)
        elif self._hyper and state.decided and state.step % self.gates.every == 0:
            self._prior_slope()
        self.optimiser.step()
        self.gated.likelihood.follow_(y, _window(self.gated.likelihood.rows, len(x)))
        self.optimiser.zero_grad(set_to_none=True)
        return replace(state, step=state.step + 1, velocity=velocity), Info(nll, gradient is not None)

    def forget(self) -> None:
        """Look again which units are alive: the structure changed. Steps themselves never ask the device."""
        self._units = self.gated.kept()
        self._alive = self.gated.alive.nonzero().squeeze(1)
        self._refresh()

    def _refresh(self) -> None:
        """Inclusion probabilities of the living units, after the gates have moved."""
        self._log_odds = self.gated.log_odds.data[self._alive]
        self._probs = torch.sigmoid(self._log_odds)

    # ---- the likelihood

    def _problem(self, x: Inputs, y: Tensor) -> GateProblem:
        def nll(gates: Mapping[str, Tensor], factors: Mapping[str, Tensor] | None = None) -> Tensor:
            return self._nll(x, y, self._noise(len(x), gates, factors or {}))

        noise = self.gated.unit_noise
        return GateProblem(nll, self._probs, self._log_odds, self._units, len(x), self.generator, noise)

    def _nll(self, x: Inputs, y: Tensor, gates: Mapping[str, Tensor]) -> Tensor:
        outputs = self.gated.network(x, gates, self._weight_noise if self.gated.log_scales else None)
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
        return noisy

    # ---- the priors

    def _weight_backward(self) -> None:
        """Gradient of the weights' KL per row of the data set, where they have a posterior."""
        gated, total = self.gated, self.gated.log_odds.new_zeros(())
        probs = gated.inclusion_prob().detach()
        weights = gated.weight_tensors()
        for name, log_scale in gated.log_scales_by_tensor().items():
            divergence = weight_divergence(weights[name], log_scale, gated.weights.scale_of(name))
            total = total + (divergence * row_share(gated, name, probs)).sum()
        (total / gated.likelihood.rows).backward()

    def _move_gates(self, state: State, gradient: Tensor) -> Tensor:
        gated, slope = self.gated, self._prior_slope()
        full = torch.zeros_like(gated.log_odds.data)
        full[self._alive] = gradient
        full = gated.likelihood.rows * full + state.prior_weight * slope * gated.alive
        velocity, log_odds = mirror_step(
            self.gates, state.velocity, gated.log_odds.data, full, self._typical(slope)
        )
        gated.log_odds.data.copy_(log_odds)
        self._refresh()
        return velocity

    def _prior_slope(self) -> Tensor:
        """(units of all groups,), ∂(prior's nats)/∂q(z = 1); gradients of hyper-parameters go to
        ``.grad``.
        """
        gated = self.gated
        probs = gated.inclusion_prob().detach().requires_grad_()
        prior = gate_nats(gated, probs)
        if gated.weights.masked:
            prior = prior + _slab_nats(gated, probs)
        slopes = torch.autograd.grad(prior, [probs, *self._hyper], allow_unused=True)
        for parameter, slope in zip(self._hyper, slopes[1:], strict=True):
            parameter.grad = slope
        return slopes[0] if slopes[0] is not None else torch.zeros_like(probs)

    def _typical(self, slope: Tensor) -> Tensor:
        """(units of all groups,), mean size of the prior's slope over a group's living units, at least a
        nat.
        """
        sizes = slope.abs() * self.gated.alive
        parts = [sizes[part].sum() / max(self._units[name], 1) for name, part in self.gated.slices().items()]
        typical = torch.stack(parts).clamp_min(1.0)
        return typical.repeat_interleave(self._sizes, output_size=len(slope))


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
        if gated.made_by(name):
            divergence = weight_divergence(weights[name], log_scale, gated.weights.scale_of(name)).detach()
            total = total + (divergence * row_share(gated, name, probs)).sum()
    return total


def adam(gated: GatedModel, learning_rate: float) -> torch.optim.Adam:
    """Fused Adam over everything but the gates; a weight's Gaussian prior is its decay, 1/(rows · scale²).

    Args:
        gated: the model.
        learning_rate: of all of them.

    Returns:
        The optimiser, one parameter group for each prior scale.
    """
    rows, weights, scales = gated.likelihood.rows, gated.weight_tensors(), gated.log_scales_by_tensor()
    by_decay: dict[float, list[nn.Parameter]] = {}
    for name, parameter in weights.items():
        decay = 0.0 if name in scales else 1 / (rows * gated.weights.scale_of(name) ** 2)
        by_decay.setdefault(decay, []).append(parameter)
    seen = {id(p) for p in weights.values()} | {id(gated.log_odds)}
    seen |= {id(p) for p in gated.likelihood.followed()}  # these have a closed form
    by_decay.setdefault(0.0, []).extend(p for p in gated.parameters() if id(p) not in seen)
    groups = [{"params": ps, "weight_decay": decay} for decay, ps in by_decay.items() if ps]
    return torch.optim.Adam(groups, lr=learning_rate, fused=True)
