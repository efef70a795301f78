r"""Discrete hyper-sites, summed out: the gates' prior is the mixture over all that these could be.

.. math:: \log p(z \mid c) = \log \sum_k p(k \mid c) \prod_g p(z_g \mid k, c)

with c what is continuous. The program is run for each value of the discrete sites that a group names, and a
sum over a site that only one group names is done within that group, so that the sites of different groups do
not multiply each other's number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Bernoulli, Independent, constraints

from bayesprune.errors import PriorError
from bayesprune.priors.gates import Gates, configurations
from bayesprune.structure.groups import Group

MOST_COMBINATIONS = 256
"""Of values of discrete sites: in a group, and of those that groups share."""
DRAWS = 8
"""Of gates, over which the logarithm of a mixture is averaged."""
NUMBERS_AT_ONCE = 4_000_000
CERTAIN = 1e4
"""Log-odds that stand for infinite ones."""
_NO_SHAPE = torch.Size()


@dataclass
class Choices:
    """Values of the discrete sites in one run of a program, in the order that it asks for them.

    Attributes:
        prefix: numbers of the values that are given; the first value is taken where there is none.
        taken: site → number of its value.
        counts: how many values each of these could have had.
        scores: site → scalar, log-probability of its value, nats.
    """

    prefix: tuple[int, ...]
    taken: dict[str, int] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    scores: dict[str, Tensor] = field(default_factory=dict)
    _values: dict[str, Tensor] = field(default_factory=dict)

    def take(self, name: str, fn: Any) -> Tensor:
        """The value of a site in this run, which is scored.

        Args:
            name: of the site.
            fn: its distribution.
        """
        if name not in self._values:
            place = len(self.counts)
            number = self.prefix[place] if place < len(self.prefix) else 0
            values = _Values(name, fn)
            self._values[name] = values.at(number)
            self.taken[name] = number
            self.counts.append(values.count)
            self.scores[name] = fn.log_prob(self._values[name]).sum()
        return self._values[name]

    def others(self) -> list[tuple[int, ...]]:
        """What to begin further runs with, so that each combination has one run."""
        numbers = tuple(self.taken.values())
        return [
            (*numbers[:place], other)
            for place in range(len(self.prefix), len(numbers))
            for other in range(1, self.counts[place])
        ]


class _Values:
    """All values of a discrete site; of one with several entries, all combinations of these."""

    def __init__(self, name: str, fn: Any) -> None:
        try:
            self._support = fn.enumerate_support(expand=False)  # (values, 1..., *event)
        except NotImplementedError as error:
            raise PriorError(
                f"Hyper-site {name!r} of the prior is discrete ({type(fn).__name__}), and has no finite list "
                "of values to sum over: take one that has (Categorical, Bernoulli, Binomial), make it "
                "continuous, or give the prior a method guide(group, inclusion_prob) that samples it from "
                "a distribution without anything to learn."
            ) from error
        self._batch = fn.batch_shape
        self.count = len(self._support) ** self._batch.numel()
        if self.count > MOST_COMBINATIONS:
            raise PriorError(
                f"Hyper-site {name!r} of the prior is discrete, of shape {tuple(fn.batch_shape)} with "
                f"{len(self._support)} values for each entry: more than {MOST_COMBINATIONS} combinations to "
                "sum over. Where entries are independent, return their mixture as the gates' distribution "
                "(Gates with the mean probability); else take fewer, or a continuous site."
            )

    def at(self, number: int) -> Tensor:
        """(*batch, *event), the combination of that number."""
        values, digits = len(self._support), []
        for _ in range(self._batch.numel()):
            number, digit = divmod(number, values)
            digits.append(digit)
        rest = self._support.shape[1 + len(self._batch) :]
        chosen = self._support.reshape(torch.Size([values]) + rest)[torch.tensor(digits, dtype=torch.long)]
        found: Tensor = chosen.reshape(self._batch + rest)
        return found


@dataclass
class Leaf:
    """One run of a group's program.

    Attributes:
        gates: distribution of the group's gates.
        taken: site → number of its value.
        scores: site → scalar, nats.
    """

    gates: TorchDistribution
    taken: dict[str, int]
    scores: dict[str, Tensor]


def leaves_of(
    group: Group, begin: Callable[[tuple[int, ...]], Choices], run: Callable[[Group], TorchDistribution]
) -> list[Leaf]:
    """Run a group's program for every value of its discrete sites.

    Args:
        group: the group.
        begin: is told which values the next run begins with.
        run: the program.

    Raises:
        PriorError: there are too many combinations.
    """
    ahead: list[tuple[int, ...]] = [()]
    found: list[Leaf] = []
    while ahead:
        choices = begin(ahead.pop())
        gates = run(group)
        found.append(Leaf(gates, choices.taken, choices.scores))
        ahead.extend(choices.others())
        if len(found) + len(ahead) > MOST_COMBINATIONS:
            raise PriorError(
                f"The discrete hyper-sites of group {group.name!r} ({', '.join(map(repr, choices.taken))}) "
                f"have more than {MOST_COMBINATIONS} combinations of values to sum over: take fewer of "
                "them, with fewer values, or return the mixture over them as the gates' distribution."
            )
    return found


class MixtureOfGates(TorchDistribution):
    r"""Gates of one group whose distribution is one of several, and nobody knows which.

    .. math:: p(z) = \sum_l w_l\, p_l(z)

    Args:
        log_weights: (..., parts), log-weights; they need not sum to one.
        parts: distributions over {0,1}^units, without a batch.
        validate_args: check values; by default as torch does.

    Example:
        >>> import torch
        >>> on, off = Gates(probs=torch.full((2,), 0.9)), Gates(probs=torch.zeros(2))
        >>> mixture = MixtureOfGates(torch.tensor([0.5, 0.5]).log(), [on, off])
        >>> mixture.event_shape, round(mixture.log_prob(torch.zeros(2)).exp().item(), 4)
        (torch.Size([2]), 0.505)
    """

    arg_constraints: ClassVar = {"log_weights": constraints.independent(constraints.real, 1)}
    support = constraints.independent(constraints.boolean, 1)
    has_enumerate_support = True

    def __init__(self, log_weights: Tensor, parts: Sequence[Any], validate_args: bool | None = None) -> None:
        self.log_weights = log_weights.log_softmax(-1)
        self.parts = tuple(parts)
        super().__init__(log_weights.shape[:-1], self.parts[0].event_shape, validate_args=validate_args)

    @cached_property
    def stacked(self) -> Gates | None:
        """All parts as one distribution of batch (parts,), where each is of independent gates."""
        return stacked(self.parts)

    def log_probs(self, value: Tensor) -> Tensor:
        """(..., parts), nats, log-probability under each part."""
        if self.stacked is not None:
            return self.stacked.log_prob(value.unsqueeze(-2))
        return torch.stack([part.log_prob(value) for part in self.parts], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), nats."""
        if self._validate_args:
            self._validate_sample(value)
        return torch.logsumexp(self.log_weights + self.log_probs(value), -1)

    def sample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Draws, sample_shape + (..., units)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            which = torch.distributions.Categorical(logits=self.log_weights).sample(torch.Size(sample_shape))
            if self.stacked is not None:
                drawn: Tensor = Gates(probs=self.stacked.probs[which]).sample()
                return drawn
            drawn = torch.stack([part.sample(shape) for part in self.parts])  # (parts, *shape, units)
            where = which.reshape(1, *shape, 1).expand(1, *shape, *self.event_shape)
            return drawn.gather(0, where).squeeze(0)

    def expand(self, batch_shape: Any, _instance: MixtureOfGates | None = None) -> MixtureOfGates:
        """The same mixture over a larger batch."""
        weights = self.log_weights.expand(*torch.Size(batch_shape), self.log_weights.shape[-1])
        return MixtureOfGates(weights, self.parts, validate_args=False)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All configurations, as those of :class:`Gates`."""
        return configurations(self.event_shape[0], self.batch_shape, self.log_weights, expand)


def stacked(parts: Sequence[Any]) -> Gates | None:
    """Distributions of independent gates as one, of batch (parts,); None where one of them is not."""
    bases = [part.base_dist if isinstance(part, Independent) else part for part in parts]
    if not all(isinstance(base, Gates | Bernoulli) for base in bases):
        return None
    if any(base.batch_shape and isinstance(base, Gates) for base in bases):
        return None
    if all("probs" in base.__dict__ for base in bases):
        return Gates(probs=torch.stack([base.probs for base in bases]), validate_args=False)
    return Gates(logits=torch.stack([base.logits for base in bases]), validate_args=False)


class Block:
    """Groups whose discrete sites are summed out together, since they share some of them.

    Args:
        leaves: group → its runs; shared sites come before the group's own in no particular order.
        shared: sites that several of the groups name.

    Attributes:
        groups: their names.
        log_weights: (joint values of the shared sites,), nats.
    """

    def __init__(self, leaves: Mapping[str, list[Leaf]], shared: frozenset[str]) -> None:
        self.groups = tuple(leaves)
        self._mixtures: dict[str, MixtureOfGates] = {}
        self._local: dict[str, Tensor] = {}  # (leaves,), nats of what is the group's own
        self._sets: dict[str, list[list[int]]] = {}  # leaves by the value of the shared sites
        self._which: dict[str, Tensor] = {}  # (joint values,), of these sets
        scores: dict[str, dict[int, Tensor]] = {}
        for runs in leaves.values():
            for leaf in runs:
                for site in shared & leaf.taken.keys():
                    scores.setdefault(site, {}).setdefault(leaf.taken[site], leaf.scores[site])
        sites = sorted(scores)
        joint = list(itertools.islice(itertools.product(*(scores[s] for s in sites)), MOST_COMBINATIONS + 1))
        if len(joint) > MOST_COMBINATIONS:
            raise PriorError(
                f"The discrete hyper-sites {', '.join(map(repr, sites))}, which groups share, have more than "
                f"{MOST_COMBINATIONS} combinations of values to sum over: take fewer of them, or let each "
                "group have its own."
            )
        like = next(iter(leaves.values()))[0]
        zero = torch.zeros((), dtype=_type_of(like.gates))
        self.log_weights = torch.stack(
            [sum((scores[s][n] for s, n in zip(sites, numbers, strict=True)), zero) for numbers in joint]
        )
        for name, runs in leaves.items():
            own = [
                sum((score for site, score in leaf.scores.items() if site not in shared), zero)
                for leaf in runs
            ]
            self._local[name] = torch.stack([torch.as_tensor(score) for score in own])
            self._mixtures[name] = MixtureOfGates(self._local[name], [leaf.gates for leaf in runs])
            known = [s for s in sites if s in runs[0].taken]
            places = [sites.index(s) for s in known]
            keys: dict[tuple[int, ...], list[int]] = {}
            for number, leaf in enumerate(runs):
                keys.setdefault(tuple(leaf.taken[s] for s in known), []).append(number)
            self._sets[name] = list(keys.values())
            order = {key: number for number, key in enumerate(keys)}
            self._which[name] = torch.tensor([order[tuple(numbers[p] for p in places)] for numbers in joint])

    @property
    def independent(self) -> bool:
        """Whether gates are independent given the sites, in every group."""
        return all(mixture.stacked is not None for mixture in self._mixtures.values())

    def given(self, name: str, before: Mapping[str, Tensor]) -> MixtureOfGates:
        """The distribution of a group's gates given those of other groups of the block.

        Args:
            name: of the group.
            before: group → (..., size), gates that are known.
        """
        weights = self.log_weights
        for other in self.groups:
            if other in before and other != name:
                weights = weights + self._by_joint(other, self._mixtures[other].log_probs(before[other]))
        parts, which = self._mixtures[name], self._which[name]
        # a leaf's weight: its own sites', and that of all joint values that go with it
        spread = []
        for number, leaves in enumerate(self._sets[name]):
            fitting = torch.logsumexp(weights[..., which == number], -1, keepdim=True)
            spread.append((torch.tensor(leaves), fitting + self._local[name][leaves]))
        order = torch.cat([leaves for leaves, _ in spread]).argsort()
        return MixtureOfGates(torch.cat([w for _, w in spread], -1)[..., order], parts.parts)

    def log_prob(self, gates: Mapping[str, Tensor]) -> Tensor:
        """(...), nats, of the gates of all groups of the block, (..., size) each."""
        return torch.logsumexp(self.log_weights + sum(self._terms(gates).values()), -1)

    def divergence(self, probs: Mapping[str, Tensor], draws: int = DRAWS) -> Tensor:
        r"""KL(Bernoulli(probs) ‖ this), by draws of gates: E_q[log p(z)] has no closed form.

        Where gates are independent given the sites, the slope in each θ_i is E[f(z, z_i=1) − f(z, z_i=0)]
        with f = log p, both of which are computed for every draw; else by score function with a baseline.

        Args:
            probs: group → (size,), q(z = 1).
            draws: at most so many.

        Returns:
            Scalar, nats, unbiased, as its slopes are.
        """
        draws = self._affordable(draws)
        gates = {n: Gates(probs=probs[n].detach()).sample(torch.Size([draws])) for n in self.groups}
        scores = self.log_prob(gates)  # (draws,)
        entropy = torch.stack([Gates(probs=probs[name]).entropy() for name in self.groups]).sum()
        if self.independent:
            with torch.no_grad():
                gains = self.gains(gates)
            linear = torch.stack(
                [((probs[n] - probs[n].detach()) * gains[n].mean(0).to(probs[n])).sum() for n in self.groups]
            )
            return -entropy - scores.mean().to(entropy) - linear.sum()
        log_q = torch.stack([Gates(probs=probs[n]).log_prob(gates[n]) for n in self.groups]).sum(0)
        baseline = (scores.sum() - scores) / (draws - 1)
        surrogate = scores + (scores - baseline).detach() * (log_q - log_q.detach())
        return -entropy - surrogate.mean()

    def gains(self, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """log p(z, z_i = 1) − log p(z, z_i = 0) of every gate, at given values of the others.

        Args:
            gates: group → (draws, size).

        Returns:
            Group → (draws, size), float64, nats.

        Raises:
            NotImplementedError: gates are not independent given the sites.
        """
        terms, found = {}, {}
        for name in self.groups:
            logits, base = self._finite(name)
            terms[name] = self._by_joint(name, gates[name].double() @ logits.T + base)  # (draws, joint)
        total = self.log_weights.double() + sum(terms.values())
        for name in self.groups:
            logits, base = self._finite(name)  # (leaves, size), (leaves,)
            z = gates[name].double().unsqueeze(-1)  # (draws, size, 1)
            now = (gates[name].double() @ logits.T + base).unsqueeze(1)  # (draws, 1, leaves)
            rest = (total - terms[name]).unsqueeze(1)  # (draws, 1, joint)
            on, off = (
                torch.logsumexp(rest + self._by_joint(name, now + (value - z) * logits.T), -1)
                for value in (1.0, 0.0)
            )
            found[name] = on - off
        return found

    def _terms(self, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Group → (..., joint values), log-probability of its gates at each value of the shared sites."""
        return {n: self._by_joint(n, self._mixtures[n].log_probs(gates[n])) for n in self.groups}

    def _by_joint(self, name: str, by_leaf: Tensor) -> Tensor:
        """(..., leaves) → (..., joint values), the sum over the group's own sites done."""
        own, sets = self._local[name].to(by_leaf), self._sets[name]
        if len(sets) == 1:
            summed = torch.logsumexp(by_leaf + own, -1, keepdim=True)
        elif all(len(leaves) == 1 for leaves in sets):
            summed = by_leaf + own
        else:
            summed = torch.stack([torch.logsumexp((by_leaf + own)[..., s], -1) for s in sets], -1)
        return summed[..., self._which[name].to(by_leaf.device)]

    def _finite(self, name: str) -> tuple[Tensor, Tensor]:
        """(leaves, size) log-odds and (leaves,) Σ log(1 − π), with finite stand-ins for infinite ones."""
        whole = self._mixtures[name].stacked
        if whole is None:
            raise NotImplementedError(f"gates of {name} are not independent")
        logits = whole.logits.detach().double().clamp(-CERTAIN, CERTAIN)
        return logits, -torch.nn.functional.softplus(logits).sum(-1)

    def _affordable(self, draws: int) -> int:
        size = max(
            len(self._mixtures[n].parts) * self._mixtures[n].event_shape[0] + len(self.log_weights)
            for n in self.groups
        )
        return max(1, min(draws, NUMBERS_AT_ONCE // size)) if self.independent else draws


def _type_of(gates: Any) -> torch.dtype:
    base = gates.base_dist if isinstance(gates, Independent) else gates
    for name in ("logits", "probs"):
        if name in base.__dict__:
            kind: torch.dtype = base.__dict__[name].dtype
            return kind
    return torch.get_default_dtype()


def blocks_of(named: Mapping[str, frozenset[str]]) -> list[tuple[str, ...]]:
    """Groups that belong together, since a chain of shared sites leads from one to the other.

    Args:
        named: group → sites.

    Returns:
        Tuples of groups, in order; groups without a site by themselves.
    """
    blocks: list[tuple[list[str], set[str]]] = []
    for group, sites in named.items():
        touching = [block for block in blocks if block[1] & sites]
        names = [name for block in touching for name in block[0]]
        blocks = [block for block in blocks if block not in touching]
        blocks.append(([*names, group], set(sites).union(*(block[1] for block in touching))))
    order = {name: place for place, name in enumerate(named)}
    tidy = [tuple(sorted(names, key=order.__getitem__)) for names, _ in blocks]
    return sorted(tidy, key=lambda names: order[names[0]])
