"""gate(): a network, a prior and a likelihood become a Pyro model and guide over which units exist."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.runtime import effectful
from torch import Tensor, nn
from torch.func import functional_call

from bayesprune.errors import LikelihoodError, PriorError, SettingsError
from bayesprune.likelihoods import Likelihood
from bayesprune.priors import Gates, NormalWeights
from bayesprune.priors.default_guide import DefaultGuide, member
from bayesprune.structure import Chain, Group, cut_, find_chain

Prior = Callable[[Group], TorchDistribution]


def gate(
    network: nn.Module,
    example: Tensor,
    *,
    prior: Prior,
    likelihood: Likelihood,
    weights: NormalWeights | None = None,
    exclude: Iterable[str] = (),
    initial_inclusion: float | Mapping[str, float] = 0.9,
    unit_noise: float | Mapping[str, float] = 0.0,
) -> GatedModel:
    """Put a Bernoulli gate on every unit of a network that can be removed.

    The gate z_u multiplies unit u at the input of every layer that reads it, so z_u = 0 equals its removal
    exactly.

    Args:
        network: a feed-forward network of Linear, Conv, BatchNorm, activations, pooling and Flatten; it is
            copied.
        example: (rows, ...), a batch that the network accepts; only its shape and dtype matter.
        prior: a Pyro program ``prior(group)`` that returns the distribution of that group's gates, and may
            sample hyper-sites first; an ``nn.Module`` may hold parameters of its own.
        likelihood: how outputs explain targets; it knows the number of rows of the data set.
        weights: prior and guide of the weights; by default the prior's own ``weights``, else
            ``NormalWeights()``.
        exclude: names or globs of groups to leave whole, such as ``"input"`` or ``"conv*"``.
        initial_inclusion: q(z = 1) to begin with, one for all groups, or by group name or glob.
        unit_noise: standard deviation σ of noise while training: every row multiplies a unit by a factor from
            Uniform(1 ± √3 σ). One for all groups, or by group name or glob; groups not named have none.

    Returns:
        The gated model, in train mode.

    Raises:
        UnsupportedNetworkError: a module or operation without a removal rule; it is named.
        NothingToGateError: no unit can be removed.
        PriorError: the prior does not give a distribution over a group's gates.
        LikelihoodError: the network's outputs do not fit the likelihood.

    Example:
        >>> import bayesprune as bp
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))
        >>> gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=100))
        >>> [(group.name, group.size) for group in gated.groups]
        [('input', 4), ('0', 8)]
    """
    if not isinstance(likelihood, Likelihood):
        raise LikelihoodError(
            f"likelihood={likelihood!r} is not a likelihood: "
            "pass an instance such as bp.Categorical(rows=60_000)."
        )
    chain = find_chain(network, example, exclude)
    weights = weights or getattr(prior, "weights", None) or NormalWeights()
    start = torch.cat([_initial_log_odds(group, initial_inclusion) for group in chain.groups])
    dtype = next(chain.parameters()).dtype
    gated = GatedModel(chain, prior, likelihood, weights, start.to(dtype))
    gated.unit_noise = {group.name: s for group in chain.groups if (s := _deviation(group, unit_noise))}
    return gated.train()


def _deviation(group: Group, noise: float | Mapping[str, float]) -> float:
    named = noise if isinstance(noise, Mapping) else {"*": noise}
    value = next((s for pattern, s in named.items() if fnmatch.fnmatchcase(group.name, pattern)), 0.0)
    if not (math.isfinite(value) and value >= 0):
        raise SettingsError(f"unit_noise of group {group.name!r} is {value}: it must be 0 or more.")
    return float(value)


def _initial_log_odds(group: Group, inclusion: float | Mapping[str, float]) -> Tensor:
    value = inclusion
    if isinstance(inclusion, Mapping):
        value = next((p for pattern, p in inclusion.items() if fnmatch.fnmatchcase(group.name, pattern)), 0.9)
    if not 0.0 < float(value) < 1.0:  # type: ignore[arg-type]
        raise SettingsError(
            f"initial_inclusion of group {group.name!r} is {value}: it must lie between 0 and 1."
        )
    return torch.full((group.size,), math.log(float(value) / (1 - float(value))))  # type: ignore[arg-type]


class GatedModel(nn.Module):
    """A network under random gates; ``model`` and ``guide`` are ordinary Pyro callables.

    Sites: ``gate/<group>`` (size,) by original unit id, the hyper-sites of the prior, ``weight/<tensor>`` for
    every weight and bias, and ``y``. Units that were removed stay in the gate sites, held at zero, so that
    hyper-priors keep seeing the whole group.

    Attributes:
        network: the working copy of the user's network.
        groups: the groups, as in the dense network.
        log_odds: (units of all groups,), log q(z=1)/q(z=0), a parameter.
        alive: (units of all groups,), bool: still in the network.
        log_scales: tensor name → log standard deviation of the weights' posterior; empty where weights are
            points.
        unit_noise: group → standard deviation of the multiplicative noise on its units; none to begin with.
    """

    alive: Tensor

    def __init__(
        self, network: Chain, prior: Prior, likelihood: Likelihood, weights: NormalWeights, log_odds: Tensor
    ) -> None:
        super().__init__()
        self.network = network
        self.prior = prior
        self.likelihood = likelihood
        self.weights = weights
        self.log_odds = nn.Parameter(log_odds)
        self.register_buffer("alive", torch.ones_like(log_odds, dtype=torch.bool))
        self.log_scales = nn.ParameterDict()
        self.unit_noise: dict[str, float] = {}
        self.default_guide = DefaultGuide(prior, self.groups, dtype=log_odds.dtype)
        self.dense_numel = {name: tensor.numel() for name, tensor in self.weight_tensors().items()}
        self.dense_parameters, self.dense_macs = network.parameter_count(), network.macs()
        for group in self.groups:
            self.gate_prior(group)  # complains now, not in the middle of a fit
        if weights.posterior == "normal":
            self.spread_weights_(weights.initial_scale)

    # ---- reading

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the dense network, in order."""
        return self.network.groups

    def slices(self) -> dict[str, slice]:
        """Group → its part of ``log_odds`` and ``alive``."""
        ends, start = {}, 0
        for group in self.groups:
            ends[group.name] = slice(start, start + group.size)
            start += group.size
        return ends

    def inclusion_prob(self) -> Tensor:
        """(units of all groups,) q(z = 1); exactly zero for units that were removed."""
        return torch.sigmoid(self.log_odds) * self.alive

    def by_group(self, flat: Tensor) -> dict[str, Tensor]:
        """Split a (units of all groups,) tensor: group → (size,)."""
        return {name: flat[part] for name, part in self.slices().items()}

    def kept(self) -> dict[str, int]:
        """Group → units still in the network."""
        return {name: int(mask.sum()) for name, mask in self.by_group(self.alive).items()}

    def weight_tensors(self) -> dict[str, nn.Parameter]:
        """Name → weight or bias that has a prior: those of Linear and Conv layers."""
        producers = self.network.producers()
        return {n: p for n, p in self.network.named_parameters() if n.rpartition(".")[0] in producers}

    def gate_prior(self, group: Group) -> TorchDistribution:
        """Run the prior for one group and bring what it returns into the form of one vector event.

        Args:
            group: the group.

        Returns:
            A distribution with event shape (group.size,).

        Raises:
            PriorError: what the prior returned is no distribution over that group's gates.
        """
        with torch.device(self.log_odds.device):  # priors need not think of devices
            gates = self.prior(group)
        if (
            isinstance(gates, TorchDistributionMixin)
            and gates.event_shape == ()
            and gates.batch_shape[-1:] == (group.size,)
        ):
            gates = gates.to_event(1)
        if not isinstance(gates, TorchDistributionMixin) or gates.event_shape != (group.size,):
            shape = tuple(gates.shape()) if isinstance(gates, TorchDistributionMixin) else None
            raise PriorError(
                f"The prior returned {type(gates).__name__} (shape {shape}) for group {group.name!r}, which "
                f"has {group.size} gates: return a distribution over {{0,1}}^{group.size}, "
                "such as bp.priors.Gates(probs=rate.expand(group.size))."
            )
        return gates

    # ---- the Pyro program

    def model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """p(gates, hyper-sites, weights) · p(y | x, …), the rows scaled up to the data set.

        Args:
            x: (batch, ...), inputs.
            y: targets of the likelihood, or None to sample them.

        Returns:
            (..., batch, outputs), the network's outputs.
        """
        gates = {
            group.name: pyro.sample(f"gate/{group.name}", self.gate_prior(group)) for group in self.groups
        }
        weights = {}
        for name, tensor in self.weight_tensors().items():
            prior = dist.Normal(tensor.new_zeros(()), self.weights.scale_of(name)).expand(tensor.shape)
            weights[name] = pyro.sample(f"weight/{name}", prior.to_event(tensor.ndim))
            self._refund_closed_units(name, weights[name], gates)
            if name not in self.log_scales_by_tensor():  # points: what was removed stays, at the prior's mode
                gone, mode = self.dense_numel[name] - tensor.numel(), tensor.new_zeros(())
                log_mode = dist.Normal(mode, self.weights.scale_of(name)).log_prob(mode)
                pyro.factor(f"removed/{name}", gone * log_mode)
        with self._rows(x):
            outputs = self.outputs(x, gates, weights, self._sample_noise(x))
            pyro.sample("y", self.likelihood(outputs), obs=None if y is None else self.likelihood.observe(y))
        return outputs

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """q(gates) q(hyper-sites) q(weights): Bernoulli gates; points or Gaussians for the weights.

        Args:
            x: (batch, ...), inputs; only their number matters.
            y: ignored; here because Pyro calls model and guide alike.
        """
        self._announce_parameters()
        for group, probs in zip(self.groups, self.by_group(self.inclusion_prob()).values(), strict=True):
            self.hyper_guide(group, probs)
            pyro.sample(f"gate/{group.name}", Gates(probs=probs))
        scales = self.log_scales_by_tensor()
        for name, tensor in self.weight_tensors().items():
            if name in scales:
                posterior = dist.Normal(tensor, scales[name].exp())
                pyro.sample(f"weight/{name}", posterior.to_event(tensor.ndim))
            else:
                pyro.sample(f"weight/{name}", dist.Delta(tensor).to_event(tensor.ndim))
        if self.unit_noise:
            with self._rows(x):
                self._sample_noise(x)

    def _announce_parameters(self) -> None:
        """Tell ``pyro.infer.SVI`` what to train, as ``PyroModule`` does with local parameters.

        The values are this module's own, and Pyro's global store never hears of them.
        """
        for name, parameter in self.named_parameters():
            value = parameter.view_as(parameter)
            value.unconstrained = lambda parameter=parameter: parameter  # type: ignore[attr-defined]
            effectful(lambda value=value: value, type="param")(name=f"param/{name}")

    def _rows(self, x: Tensor) -> pyro.plate:
        return pyro.plate(
            "rows", self.likelihood.rows, subsample=torch.arange(len(x), device=x.device), dim=-1
        )

    def _sample_noise(self, x: Tensor) -> dict[str, Tensor]:
        """A factor of mean 1 for every row and unit. The guide is the prior, so it costs no nats."""
        kept, draws = self.kept(), {}
        for group, noise in self.unit_noise.items():
            half_width = x.new_full((len(x), kept[group]), 3.0**0.5 * noise)
            spread = dist.Uniform(1 - half_width, 1 + half_width).to_event(1)
            draws[group] = pyro.sample(f"noise/{group}", spread)
        return draws

    def hyper_guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Sample the hyper-sites of one group from the prior's own guide, else from the default one.

        Args:
            group: the group.
            inclusion_prob: (group.size,), q(z = 1).
        """
        own = member(self.prior, group)
        with torch.device(self.log_odds.device):
            if hasattr(own, "guide"):
                own.guide(group, inclusion_prob)
            else:
                self.default_guide(group)

    def outputs(
        self,
        x: Tensor,
        gates: Mapping[str, Tensor],
        weights: Mapping[str, Tensor] | None = None,
        noise: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Run the network under given gates and weights.

        Args:
            x: (batch, ...), inputs.
            gates: group → (..., size), by original unit id.
            weights: tensor name → values; by default the network's own.
            noise: group → (batch, living units), factors on the units.

        Returns:
            (..., batch, outputs).
        """
        alive = self.by_group(self.alive)
        living = {}
        for name, z in gates.items():
            z = z if bool(alive[name].all()) else z[..., alive[name]]
            living[name] = z.to(self.log_odds.dtype)  # a user's prior may work in double precision
        for name, factor in (noise or {}).items():
            living[name] = living[name] * factor
        return functional_call(self.network, dict(weights or {}), (x, living))  # type: ignore[no-any-return]

    def _refund_closed_units(self, name: str, weights: Tensor, gates: Mapping[str, Tensor]) -> None:
        """Spike-and-slab: give back the nats of weights whose unit's gate is closed.

        Their prior becomes their own guide (the pseudo-prior of Carlin & Chib 1995): nothing reads them, and
        they cost nothing.
        """
        spread, owner = self.log_scales_by_tensor().get(name), self.owner_of_rows(name)
        if not self.weights.masked or spread is None or owner is None:
            return
        guide = dist.Normal(self.weight_tensors()[name], spread.exp())
        slab = dist.Normal(weights.new_zeros(()), self.weights.scale_of(name))
        excess = guide.log_prob(weights) - slab.log_prob(weights)
        refund = excess.reshape(len(weights), -1).sum(1)  # (living units,)
        closed = 1 - gates[owner][..., self.by_group(self.alive)[owner]]
        pyro.factor(f"closed/{name}", (closed * refund).sum(-1))

    def owner_of_rows(self, tensor: str) -> str | None:
        """The group whose units the rows of a weight or bias make, if that group is gated."""
        return next((s.group for s in self.network.slots if (s.tensor, s.dim) == (tensor, 0)), None)

    # ---- changes in place

    def log_scales_by_tensor(self) -> dict[str, nn.Parameter]:
        """Tensor name → log posterior standard deviations, for the weights that have a posterior."""
        return {key.replace("/", "."): value for key, value in self.log_scales.items()}

    def spread_weights_(self, scale: float) -> None:
        """Widen the guide of all weights from points to Gaussians.

        Args:
            scale: standard deviation to begin with.
        """
        for name, tensor in self.weight_tensors().items():
            self.log_scales[name.replace(".", "/")] = nn.Parameter(torch.full_like(tensor, math.log(scale)))

    def remove_(self, dead: Tensor, optimiser: torch.optim.Optimizer | None = None) -> None:
        """Remove units from network, optimiser and guide; outputs stay what they were at gate zero.

        Args:
            dead: (units of all groups,), bool.
            optimiser: its moments are cut alike.
        """
        alive = {name: mask.cpu() for name, mask in self.by_group(self.alive & ~dead).items()}
        alive = cut_(self.network, alive, optimiser, self.log_scales_by_tensor())
        self.alive = torch.cat(list(alive.values())).to(self.alive.device)
