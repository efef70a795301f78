"""A prior and its guide, run for several groups as one Pyro program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Bernoulli

from bayesprune.errors import PriorError
from bayesprune.priors.default_guide import DefaultGuide
from bayesprune.priors.gates import Gates
from bayesprune.priors.one_program import OneProgram
from bayesprune.priors.protocol import member
from bayesprune.priors.summed import Block, blocks_of, leaves_of
from bayesprune.structure.groups import Group

Prior = Callable[[Group], TorchDistribution]
"""Any function of a group that returns a distribution over its gates."""


@dataclass(frozen=True)
class GatePriors:
    """The gates of several groups given the hyper-sites, as one run of the program has them.

    Attributes:
        plain: group → distribution of its gates, event shape (size,), where nothing is summed out.
        blocks: the other groups, by discrete sites that they share.
    """

    plain: dict[str, TorchDistribution]
    blocks: tuple[Block, ...] = ()

    def given(self, group: str, before: Mapping[str, Tensor]) -> TorchDistribution:
        """The distribution of a group's gates; of those before it where they share a site that is summed out.

        Args:
            group: its name.
            before: group → (..., size), gates that are known.

        Returns:
            A distribution with event shape (size,).
        """
        if group in self.plain:
            return self.plain[group]
        return next(b for b in self.blocks if group in b.groups).given(group, before)

    def log_prob(self, gates: Mapping[str, Tensor]) -> Tensor:
        """(...), nats, log-probability of the gates of all these groups.

        Args:
            gates: group → (..., size).
        """
        parts = [prior.log_prob(gates[name]) for name, prior in self.plain.items()]
        parts += [block.log_prob(gates) for block in self.blocks]
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0)


def run_prior(prior: Prior, groups: Sequence[Group], extra: DefaultGuide, device: torch.device) -> GatePriors:
    """Run a prior for each of several groups, as one program: its sites are seen by the handlers outside.

    Args:
        prior: the prior.
        groups: the groups.
        extra: what was made for it by ``gate``.
        device: where tensors are made; priors need not think of it.

    Raises:
        PriorError: what it returned is no distribution over a group's gates.
    """
    with OneProgram(extra.stored, extra.summed) as program, _made_on(device):

        def run(group: Group) -> TorchDistribution:
            return as_gates(prior(group), group)

        plain, leaves = {}, {}
        for group in groups:
            if extra.summed_by[group.name]:
                leaves[group.name] = leaves_of(group, program.begin, run)
            else:
                program.begin()
                plain[group.name] = run(group)
        if not leaves:
            return GatePriors(plain)
        named = {name: extra.summed_by[name] & extra.shared for name in leaves}
        blocks = blocks_of(named)
        return GatePriors(plain, tuple(Block({n: leaves[n] for n in b}, extra.shared) for b in blocks))


def run_guide(
    prior: Prior,
    groups: Sequence[Group],
    extra: DefaultGuide,
    inclusion_prob: Mapping[str, Tensor],
    device: torch.device,
) -> None:
    """Sample the hyper-sites of several groups, from the prior's own guide or else from the default one.

    Args:
        prior: the prior.
        groups: the groups.
        extra: what was made for it by ``gate``.
        inclusion_prob: group → (size,), q(z = 1).
        device: where tensors are made.
    """
    with OneProgram(extra.stored) as program, _made_on(device):
        for group in groups:
            program.begin()
            own = member(prior, group)
            if hasattr(own, "guide"):
                own.guide(group, inclusion_prob[group.name])
            else:
                extra(group)


def _made_on(device: torch.device) -> AbstractContextManager[Any]:
    """Make tensors there; without a mode, for which every operation pays, where that is so anyway."""
    return nullcontext() if torch.get_default_device() == device else torch.device(device)


def as_gates(gates: Any, group: Group) -> TorchDistribution:
    """What a prior returned, in the form of one vector event.

    Args:
        gates: that.
        group: the group that it was given.

    Raises:
        PriorError: it is no distribution over that group's gates.
    """
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
    base = getattr(gates, "base_dist", None)
    if isinstance(base, Bernoulli) and base.batch_shape == (group.size,):
        # the same, but exact at infinite log-odds, where a Bernoulli's log-probability is no number
        name = "probs" if "probs" in base.__dict__ else "logits"
        return Gates(**{name: getattr(base, name)}, validate_args=False)
    found: TorchDistribution = gates
    return found
