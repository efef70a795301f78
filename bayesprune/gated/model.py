"""GatedModel: gates, hyper-sites, weights and targets as a Pyro model and its guide."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from bayesprune.errors import PriorError
from bayesprune.gated.announce import announce_parameters
from bayesprune.gated.checks import check_prior
from bayesprune.gated.continuous import BOUND, Continuous, check_continuous
from bayesprune.gated.dead import median_units
from bayesprune.gated.fold import check_folds, fold_
from bayesprune.gated.held import check_held
from bayesprune.gated.links import Autoregressive, Links
from bayesprune.gated.meant import check_penalty, pins_of
from bayesprune.gated.network import GatedNetwork
from bayesprune.gated.predictive import members_of
from bayesprune.likelihoods import Likelihood, Member
from bayesprune.priors import Gates, NormalWeights
from bayesprune.priors.continuous import ContinuousPrior
from bayesprune.priors.default_guide import DefaultGuide
from bayesprune.priors.program import GatePriors, Prior, run_guide, run_prior
from bayesprune.priors.protocol import bound, member
from bayesprune.rows import Call, Form, Inputs
from bayesprune.structure import Group
from bayesprune.structure.copying import copy_of
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.graph.surgery.cut import Moments


class GatedModel(GatedNetwork):
    """A network under random gates; ``model`` and ``guide`` are ordinary Pyro callables.

    Sites: ``gate/<group>`` (size,) by original unit id, the hyper-sites of the prior, ``weight/<tensor>`` for
    every weight and bias, ``noise/<group>`` (batch, living units) where units have noise, and ``y``. Units
    that were removed stay in the gate sites, held at zero, so that hyper-priors keep seeing the whole group.
    Gates may be continuous (``priors.ContinuousPrior``): then ``gate/<group>`` is a factor, until gates are
    decided; of a decided model it is in the weights, and there is no such site.

    Attributes:
        prior: the prior program.
        likelihood: how outputs explain targets.
        weights: prior and guide of the weights.
        unit_noise: group → standard deviation of the multiplicative noise on its units; groups not named have
            none.
        guides: group → what its guide was asked to hold; groups not named have independent gates.
        links: the parameters of these guides, by group (``|`` for a dot).
        continuous: guides of the groups whose gates are continuous.
    """

    def __init__(
        self,
        network: GraphNetwork,
        prior: Prior,
        likelihood: Likelihood,
        weights: NormalWeights,
        log_odds: Tensor,
        unit_noise: Mapping[str, float],
        form: Form,
        guides: Mapping[str, Autoregressive] | None = None,
    ) -> None:
        super().__init__(network, log_odds, form)
        self.prior = prior
        self.likelihood = likelihood
        self.weights = weights
        self.unit_noise = dict(unit_noise)
        self.guides = dict(guides or {})
        sizes = {group.name: group.size for group in self.groups}
        linked = {n.replace(".", "|"): Links(sizes[n], asked, log_odds) for n, asked in self.guides.items()}
        self.links = nn.ModuleDict(linked)
        found = {group.name: member(prior, group) for group in self.groups}
        continuous = {name: own for name, own in found.items() if isinstance(own, ContinuousPrior)}
        self.continuous = Continuous(continuous, self.groups, log_odds)
        self.switches = tuple(group for group in self.groups if group.name not in continuous)
        self.default_guide = DefaultGuide(prior, self.switches, dtype=log_odds.dtype)
        self.follow_continuous_()
        with poutine.block():  # as in an inference: a prior may hold a pyro.factor
            self._check_prior()  # complains now, not in the middle of a fit
            self._check_ends()
        if weights.posterior == "normal":
            self.spread_weights_(weights.initial_scale)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """The network at its most probable gates: what ``bp.prune`` would return computes the same.

        Args:
            inputs: (batch, ...), as the network takes them.
            named: likewise, by name.

        Returns:
            (batch, ...), the part of its outputs that the likelihood reads.

        Example:
            >>> import bayesprune as bp
            >>> x = torch.randn(5, 4)
            >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
            >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))
            >>> gated = bp.gate(network, x, prior=prior, likelihood=bp.Categorical(rows=100))
            >>> gated(x).shape
            torch.Size([5, 3])
        """
        x = inputs[0] if len(inputs) == 1 and not named else named or inputs
        outputs: Tensor = self.network(self._inputs(x), self.vertex())
        return outputs

    def vertex(self) -> dict[str, Tensor]:
        """Group → (living units,), the gates that ``prune`` builds in: zero or one, or a factor's mean."""
        alive, kept = self.by_group(self.alive), self.by_group(median_units(self).to(self.log_odds.dtype))
        for name, mean in self.continuous.means().items():
            kept[name] = kept[name] * mean
        return {name: kept[name][alive[name]] for name in kept}

    def model(self, x: Any, y: Tensor | None = None) -> Tensor:
        """p(gates, hyper-sites, weights) · p(y | x, …), the rows scaled up to the data set.

        Args:
            x: (batch, ...), inputs, in the form of ``gate``'s example.
            y: targets of the likelihood, or None to sample them.

        Returns:
            (..., batch, outputs), the network's outputs.
        """
        x = self._inputs(x)
        gates: dict[str, Tensor] = {}
        priors = self.gate_priors()
        for group in self.switches:
            gates[group.name] = pyro.sample(f"gate/{group.name}", priors.given(group.name, gates))
        gates |= self._continuous_gates()
        weights = {}
        for name, tensor in self.weight_tensors().items():
            prior = dist.Normal(tensor.new_zeros(()), self.weight_scale(name)).expand(tensor.shape)
            drawn = pyro.sample(f"weight/{name}", prior.to_event(tensor.ndim))
            one = drawn.numel() == tensor.numel()  # Predictive puts empty plate dimensions in front
            weights[name] = drawn.reshape(tensor.shape) if one else drawn
            self._refund_closed_units(name, weights[name], gates)
            if name not in self.log_scales_by_tensor():  # points: what was removed stays, at the prior's mode
                gone, mode = self.dense_numel[name] - tensor.numel(), tensor.new_zeros(())
                log_mode = dist.Normal(mode, self.weights.scale_of(name)).log_prob(mode)
                pyro.factor(f"removed/{name}", gone * log_mode)
        with self._rows(x):
            outputs = self.outputs(x, gates, weights, self._sample_noise(x))
            y = y if y is None else self.likelihood.taught(x, y)
            site = self.likelihood.site(outputs, y)
            pyro.sample("y", site, obs=None if y is None else self.likelihood.observe(y))
        return outputs

    def guide(self, x: Any, y: Tensor | None = None) -> None:
        """q(gates) q(hyper-sites) q(weights): Bernoulli gates, linked where that was asked for; points or
        Gaussians for the weights.

        Args:
            x: (batch, ...), inputs; only their number matters.
            y: ignored; here because Pyro calls model and guide alike.
        """
        x = self._inputs(x)
        self._announce_parameters()
        probs = self.by_group(self.inclusion_prob())
        self.hyper_guides(probs)
        for group in self.switches:
            pyro.sample(f"gate/{group.name}", self.gate_guide(group.name, probs[group.name]))
        self.continuous.sample_guide(self.by_group(self.alive))
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

    def weight_scale(self, tensor: str) -> Tensor | float:
        """Standard deviation of a weight's prior: as given, or the one of the most evidence now.

        Args:
            tensor: name of the weight or bias.

        Returns:
            A number; or under ``NormalWeights(relevance=True)`` (...), √(μ² + σ²), detached: at the best
            scale the ELBO's slope in it is zero.
        """
        log_scale = self.log_scales_by_tensor().get(tensor) if self.weights.relevance else None
        if log_scale is None:
            return self.weights.scale_of(tensor)
        mean, spread = self.weight_tensors()[tensor].detach(), log_scale.detach().exp()
        return torch.hypot(mean.to(spread), spread)

    def weight_share(self, tensor: str, open_units: Mapping[str, Tensor]) -> Tensor | None:
        """How much of each number of a weight is in the ELBO, under a spike-and-slab.

        Args:
            tensor: name of the weight or bias.
            open_units: group → (..., size): gates, or their probabilities.

        Returns:
            Broadcastable against the tensor; None where it is there whatever the gates are.
        """
        if not self.weights.masked:
            return None
        if self.weights.masked == "both":
            return self.share_of_ends(tensor, open_units)
        return self.share_left(tensor, open_units)

    def with_prior(self, prior: Prior) -> GatedModel:
        """The same network, weights' prior and likelihood under another prior of the gates.

        Args:
            prior: as ``gate`` takes it; one that has to see the whole network is bound to it here.

        Returns:
            A copy; this model is left alone.

        Raises:
            PriorError: the prior does not fit the network; or units were removed, so that it is no longer the
                dense one that a prior speaks of.
        """
        check_prior(prior)
        if not bool(self.alive.all()):
            raise PriorError(
                f"{int((~self.alive).sum())} units were removed from this model, and a prior speaks of the "
                "dense network: call with_prior on what gate() returned, before fit()."
            )
        network, log_odds = copy_of(self.network), self.unpinned()
        if hasattr(prior, "bind"):
            prior = bound(prior, network, log_odds, self.likelihood.rows)
        new = GatedModel(
            network, prior, self.likelihood, self.weights, log_odds, self.unit_noise, self.form, self.guides
        )
        return new.train(self.training)

    def as_teacher(self, draws: int = 32, seed: int = 0) -> tuple[Member, ...]:
        """Its predictive, as a teacher for ``bp.Distilled``: the mean over draws of masks and weights.

        Args:
            draws: how many.
            seed: of them; they are drawn once.

        Raises:
            SettingsError: ``draws`` or ``seed`` is no such number.
        """
        return members_of(self, draws, seed)

    # ---- parts of both

    def gate_guide(self, group: str, probs: Tensor | None = None) -> Any:
        """q of the gates of one group.

        Args:
            group: its name.
            probs: (size,), q(z = 1); those of now by default.

        Returns:
            ``Gates``, or ``LinkedGates`` where the guide holds correlation, or what the family of continuous
            gates is, with event shape (size,).
        """
        live = self.continuous.live
        if group in live:
            return live[group].posterior().to_event(1)
        probs = self.by_group(self.inclusion_prob())[group] if probs is None else probs
        links = self.links_of(group)
        return Gates(probs=probs) if links is None else links.gates(probs)

    def links_of(self, group: str) -> Links | None:
        """The links of a group's gates; None where these are independent under the guide.

        Args:
            group: its name.
        """
        if group not in self.guides:
            return None
        found = self.links[group.replace(".", "|")]
        assert isinstance(found, Links)
        return found

    def draw_gates(self, draws: int, generator: torch.Generator | None = None) -> Tensor:
        """Masks from the guide, on the CPU: (draws, units of all groups), bool; real numbers where gates are
        continuous.

        Args:
            draws: how many.
            generator: of the random numbers; torch's own by default.
        """
        if self.continuous.live:
            return self._draw_factors(draws, generator)
        if not self.guides:
            return super().draw_gates(draws, generator)
        theta = self.inclusion_prob().detach().cpu()
        uniform = torch.rand(draws, len(theta), generator=generator, dtype=theta.dtype)
        drawn = uniform < theta
        for name, part in self.slices().items():
            links = self.links_of(name)
            if links is not None:
                gates = copy.deepcopy(links).cpu().gates(theta[part])
                signs = torch.randint(2 ** len(gates.raw_loading), (draws,), generator=generator)
                drawn[:, part] = gates.draw(uniform[:, part], signs) > 0
        return drawn

    def _draw_factors(self, draws: int, generator: torch.Generator | None) -> Tensor:
        """(draws, units of all groups), real: what units are multiplied by."""
        theta, alive = self.inclusion_prob().detach().cpu(), self.alive.cpu()
        drawn = (torch.rand(draws, len(theta), generator=generator, dtype=theta.dtype) < theta).to(theta)
        with torch.no_grad():
            for name, q in self.continuous.live.items():
                part = self.slices()[name]
                own = copy.deepcopy(q).cpu()
                units = torch.arange(part.stop - part.start)
                drawn[:, part] = own.sample(draws, units, generator) * alive[part]
        return drawn

    def by_rule(self, below: float) -> tuple[Tensor, Tensor] | None:
        """Units with continuous gates, and those of them that are below their line.

        Args:
            below: q(z = 1) below which the others die; at the decision it is one half.
        """
        if not self.continuous.live:
            return None
        ruled, gone = torch.zeros_like(self.alive), torch.zeros_like(self.alive)
        lines, parts = self.continuous.lines(below), self.slices()
        for name, log_odds in self.continuous.log_odds().items():
            ruled[parts[name]] = True
            gone[parts[name]] = log_odds < lines[name]
        return ruled, gone

    def scored(self) -> Tensor:
        """(units of all groups,), bool: those whose log-odds are a rule's score, and no probability's."""
        found = torch.zeros_like(self.alive)
        for name, q in self.continuous.live.items():
            found[self.slices()[name]] = not q.probable
        return found

    @torch.no_grad()
    def follow_continuous_(self) -> None:
        """Let log-odds be what the rules of continuous gates look at."""
        parts = self.slices() if self.continuous.live else {}
        for name, log_odds in self.continuous.log_odds().items():
            self.log_odds.data[parts[name]] = log_odds.to(self.log_odds)

    @torch.no_grad()
    def settle_continuous_(self) -> dict[str, Tensor]:
        """Put the means of continuous gates into the weights that read their units; they are noise no more.

        Returns:
            Tensor name → what it was multiplied by, in a shape that broadcasts against it.
        """
        means = self.continuous.means()
        if not means:
            return {}
        done = fold_(self.network, means)
        for name, log_scale in self.log_scales_by_tensor().items():
            if name in done:
                log_scale.add_(done[name].abs().clamp_min(torch.finfo(log_scale.dtype).tiny).log())
        self.continuous.settle_(self.by_group(self.alive))
        for name in means:  # they passed their own line, and are there
            self.log_odds.data[self.slices()[name]] = BOUND
        return done

    def _continuous_gates(self) -> dict[str, Tensor]:
        """Group → (..., size), its continuous gates drawn; ones where they are in the weights."""
        alive = self.by_group(self.alive)
        drawn = self.continuous.sample_model(alive)
        settled = [name for name in self.continuous.priors if name not in drawn]
        return drawn | {name: alive[name].to(self.log_odds.dtype) for name in settled}

    def gates_log_prob(self, gates: Tensor) -> Tensor:
        """(draws,), float64, nats: log q of masks.

        Args:
            gates: (draws, units of all groups), zeros and ones.
        """
        theta, z = self.inclusion_prob().detach().cpu().double(), gates.double()
        total = torch.zeros(len(z), dtype=torch.double)
        for name, part in self.slices().items():
            own, links = theta[part], self.links_of(name)
            if links is None:
                scores = torch.xlogy(z[:, part], own) + torch.xlogy(1 - z[:, part], 1 - own)
                total += scores.sum(-1)
            else:
                with torch.no_grad():
                    total += copy.deepcopy(links).cpu().double().gates(own).log_prob(z[:, part])
        return total

    def remove_(self, dead: Tensor, optimiser: Moments | None = None) -> None:
        """Remove units, as ``GatedNetwork`` does; what other gates' conditionals say of them is said of zero.

        Args:
            dead: (units of all groups,), bool.
            optimiser: its moments are cut alike.
        """
        was, theta = self.alive, self.inclusion_prob().detach()
        super().remove_(dead, optimiser)
        gone = was & ~self.alive
        for name in self.guides:
            part, links = self.slices()[name], self.links_of(name)
            if links is None or not bool(gone[part].any()):
                continue
            now, tiny = links.cut_(theta[part], gone[part]), torch.finfo(theta.dtype).eps
            moved = self.alive[part] & (now != theta[part])
            own = self.log_odds.data[part]
            own.copy_(torch.where(moved, torch.logit(now, eps=tiny), own))

    def gate_priors(self, groups: Sequence[Group] | None = None) -> GatePriors:
        """Run the prior for several groups as one program: a site that several of them name is one site.

        Args:
            groups: those groups; all by default.

        Returns:
            The distributions of their gates given the hyper-sites, discrete ones summed out.

        Raises:
            PriorError: what the prior returned is no distribution over a group's gates.
        """
        groups = self.switches if groups is None else groups
        return run_prior(self.prior, groups, self.default_guide, self.log_odds.device)

    def hyper_guides(
        self, inclusion_prob: Mapping[str, Tensor], groups: Sequence[Group] | None = None
    ) -> None:
        """Sample the hyper-sites of several groups from the prior's own guide, else from the default one.

        Args:
            inclusion_prob: group → (size,), q(z = 1).
            groups: those groups; all by default.
        """
        groups = self.switches if groups is None else groups
        run_guide(self.prior, groups, self.default_guide, inclusion_prob, self.log_odds.device)

    def groups_together(self) -> list[tuple[Group, ...]]:
        """Groups by the hyper-sites that they share: what is drawn in one tuple says nothing of another."""
        named = {group.name: group for group in self.groups}
        return [tuple(named[name] for name in names) for names in self.default_guide.together]

    def gate_prior(self, group: Group) -> TorchDistribution:
        """The prior of one group by itself, as ``gate_priors`` has it for several.

        Args:
            group: the group.

        Returns:
            A distribution with event shape (group.size,).

        Raises:
            PriorError: what the prior returned is no distribution over that group's gates.
        """
        return self.gate_priors([group]).given(group.name, {})

    def hyper_guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Sample the hyper-sites of one group, as ``hyper_guides`` does for several.

        Args:
            group: the group.
            inclusion_prob: (group.size,), q(z = 1).
        """
        self.hyper_guides({group.name: inclusion_prob}, [group])

    def _check_prior(self) -> None:
        """Whether the prior can be meant, and learnt; gates of probability 0 and 1 are pinned."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            pins: dict[str, Tensor] = {}
            for groups in self.groups_together():
                found = pins_of(self, groups)
                pins.update(zip((g.name for g in groups), found.split([g.size for g in groups]), strict=True))
        self.pin_(torch.cat([pins.get(group.name, torch.zeros(group.size)) for group in self.groups]))
        for group in self.switches:
            check_held(self.gate_prior, self.hyper_guide, group, self.parameters())
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                check_penalty(self, group)
        self._check_continuous()

    def _check_ends(self) -> None:
        """Whether both ends of a weight have gates that are independent of each other."""
        if self.weights.masked == "both" and self.guides:
            raise PriorError(
                f"guide= asks for correlated gates in group {next(iter(self.guides))!r}, and weights that "
                "are there while both of their units are (masked='both') want independent ones: leave "
                "guide= out, or give masked=True."
            )

    def _check_continuous(self) -> None:
        """Whether continuous gates can be meant, and put into weights once they are decided."""
        names = list(self.continuous.priors)
        if names and self.weights.masked:
            raise PriorError(
                f"Weights that are there only while their unit's gate is on (masked=True, SpikeAndSlab) need "
                f"gates that are on or off, and those of {names[0]!r} are continuous: give gate() weights="
                "bp.priors.NormalWeights(posterior='normal')."
            )
        linked = [name for name in names if name in self.guides]
        if linked:
            raise PriorError(
                f"guide= asks for correlated gates in group {linked[0]!r}, whose gates are continuous and "
                "have the guide of their own family: name the other groups, guide={'…': "
                "bp.Autoregressive(…)}."
            )
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            check_continuous(self.continuous, self.by_group(self.alive))
        check_folds(self, names)

    def _inputs(self, x: Any) -> Inputs:
        """Inputs as they come, in tuples or dicts; tensors are taken as they are."""
        return x if isinstance(x, Tensor | Call) else self.form.read(x, "x")

    def _rows(self, x: Inputs) -> pyro.plate:
        return pyro.plate(
            "rows", self.likelihood.rows, subsample=torch.arange(len(x), device=x.device), dim=-1
        )

    def _sample_noise(self, x: Inputs) -> dict[str, Tensor]:
        """A factor of mean 1 for every row and unit, while training. The guide is the prior: no nats.

        The site is Uniform(0, 1), whose draws never reach 1. At the edge of another interval rounding would,
        and log-densities of −∞ in model and guide would cancel to NaN.
        """
        if not self.training:
            return {}
        kept, draws = self.kept(), {}
        for group, noise in self.unit_noise.items():
            zeros = self.log_odds.new_zeros(len(x), kept[group])
            share = pyro.sample(f"noise/{group}", dist.Uniform(zeros, zeros + 1).to_event(1))
            draws[group] = 1 + 3.0**0.5 * noise * (2 * share - 1)
        return draws

    def _refund_closed_units(self, name: str, weights: Tensor, gates: Mapping[str, Tensor]) -> None:
        """Spike-and-slab: give back the nats of weights whose unit's gate is closed.

        Their prior becomes their own guide (the pseudo-prior of Carlin & Chib 1995): nothing reads them, and
        they cost nothing.
        """
        spread, share = self.log_scales_by_tensor().get(name), self.weight_share(name, gates)
        if spread is None or share is None:
            return
        guide = dist.Normal(self.weight_tensors()[name], spread.exp())
        slab = dist.Normal(weights.new_zeros(()), self.weight_scale(name))
        refund = (1 - share) * (guide.log_prob(weights) - slab.log_prob(weights))
        pyro.factor(f"closed/{name}", refund.flatten(refund.ndim - weights.ndim).sum(-1))

    def _announce_parameters(self) -> None:
        announce_parameters(self)
