"""The continuous gates of a model: their guides while they are noise, and afterwards what they paid."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import kl_divergence

from bayesprune.callers import level
from bayesprune.errors import PriorError, PriorWarning
from bayesprune.priors.continuous import DRAWS, ContinuousGuide, ContinuousPrior
from bayesprune.structure import Group


class Continuous(nn.Module):
    """Guides of the groups whose prior is one of continuous gates; others have none here.

    Args:
        priors: group → prior, of those groups.
        groups: of the network, all of them.
        like: a tensor of the type that parameters are to have.

    Attributes:
        priors: group → prior.
        paid: (units of all groups,), nats that units paid for their gates when these became their means; None
            while gates are noise, or where there are none.
    """

    paid: Tensor | None

    def __init__(self, priors: Mapping[str, ContinuousPrior], groups: Sequence[Group], like: Tensor) -> None:
        super().__init__()
        self.priors = dict(priors)
        self.named = {group.name: group for group in groups}
        self.places, start = {}, 0
        for group in groups:
            self.places[group.name] = slice(start, start + group.size)
            start += group.size
        self.guides = nn.ModuleDict({key_of(n): p.family(self.named[n]) for n, p in self.priors.items()})
        self.guides.to(like)
        self.register_buffer("paid", None)

    @property
    def live(self) -> dict[str, ContinuousGuide]:
        """Group → guide of its gates, while they are noise."""
        found: dict[str, ContinuousGuide] = {}
        for name in self.priors if len(self.guides) else ():
            guide = self.guides[key_of(name)]
            assert isinstance(guide, ContinuousGuide)
            found[name] = guide
        return found

    # ---- Pyro's sites

    def sample_model(self, alive: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sites ``gate/<group>`` under the prior: group → (..., size); zero for removed units.

        Args:
            alive: group → (size,), bool.
        """
        drawn = {}
        for name in self.live:
            with _weighed(self.priors[name]):
                prior = self.priors[name](self.named[name])
                site = prior.mask(alive[name]).to_event(1)
                drawn[name] = pyro.sample(f"gate/{name}", site) * alive[name]
        return drawn

    def sample_guide(self, alive: Mapping[str, Tensor]) -> None:
        """The same sites, and the hyper-sites, under the guide.

        Args:
            alive: group → (size,), bool.
        """
        for name, q in self.live.items():
            with _weighed(self.priors[name]):
                self.priors[name].guide(self.named[name], q, alive[name])
                pyro.sample(f"gate/{name}", q.posterior().mask(alive[name]).to_event(1))

    # ---- nats, factors, death

    def nats(self, alive: Mapping[str, Tensor]) -> Tensor:
        """Scalar, weighted nats of all continuous gates; what they paid, once they are their means.

        Args:
            alive: group → (size,), bool.
        """
        if self.paid is not None:
            return self.paid[torch.cat(list(alive.values()))].sum()
        parts = [
            self.priors[name].weight * self.priors[name].nats(self.named[name], q, alive[name]).sum()
            for name, q in self.live.items()
        ]
        return torch.stack([part.to(parts[0]) for part in parts]).sum()

    @torch.no_grad()
    def prices(self, alive: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Group → (size,), nats that each unit pays for itself, zero for removed ones.

        Args:
            alive: group → (size,), bool.
        """
        if self.paid is not None:
            return {name: self.paid[self.places[name]] for name in self.priors}
        found = {}
        for name, q in self.live.items():
            prices = self.priors[name].prices(self.named[name], q, alive[name])
            found[name] = torch.where(alive[name], prices.to(alive[name].device), 0.0)
        return found

    @torch.no_grad()
    def means(self) -> dict[str, Tensor]:
        """Group → (size,), the factors that units are left with; nothing once they are in the weights."""
        return {name: q.mean().detach() for name, q in self.live.items()}

    @torch.no_grad()
    def log_odds(self) -> dict[str, Tensor]:
        """Group → (size,), what their rules look at."""
        return {name: q.log_odds().detach().clamp(-BOUND, BOUND) for name, q in self.live.items()}

    def lines(self, below: Tensor | float) -> dict[str, float]:
        """Group → log-odds below which its units die.

        Args:
            below: q(z = 1) below which Bernoulli gates do.
        """
        asked = torch.logit(torch.as_tensor(below, dtype=torch.double)).item()
        return {name: min(asked, q.line) if q.probable else q.line for name, q in self.live.items()}

    def settle_(self, alive: Mapping[str, Tensor]) -> None:
        """Let go of the guides, and remember what units paid.

        Args:
            alive: group → (size,), bool.
        """
        if not len(self.guides):
            return
        prices, total = self.prices(alive), self.places[list(self.places)[-1]].stop
        like = next(self.guides.parameters())
        self.paid = torch.zeros(total, dtype=like.dtype, device=like.device)
        for name, price in prices.items():
            self.paid[self.places[name]] = price.to(like)
        self.guides = nn.ModuleDict()


def check_continuous(continuous: Continuous, alive: Mapping[str, Tensor]) -> None:
    """Look at what programs and guides of continuous gates give, once.

    Args:
        continuous: the gates.
        alive: group → (size,), bool.

    Raises:
        PriorError: shapes other than (size,), hyper-sites that only one of both has, or draws of the guide
            that the prior has no density for.

    Warns:
        PriorWarning: the divergence has no closed form, and goes by draws.
    """
    for name, q in continuous.live.items():
        prior, group = continuous.priors[name], continuous.named[name]
        with poutine.block():
            hyper = poutine.trace(prior.guide).get_trace(group, q, alive[name])
            program = poutine.trace(poutine.replay(prior.__call__, trace=hyper)).get_trace(group)
        gates: Any = program.nodes["_RETURN"]["value"]
        told = type(prior).__name__
        posterior = q.posterior()
        for what, found in (("program", gates), ("guide", posterior)):
            shape = (getattr(found, "batch_shape", None), getattr(found, "event_shape", None))
            if shape != ((group.size,), ()):
                raise PriorError(
                    f"{told}: the {what} for group {name!r} gave {type(found).__name__} of shapes {shape}: "
                    f"the gates of a group are its batch, of shape ({group.size},), and single numbers."
                )
        sites = [set(t.nodes) - {"_INPUT", "_RETURN"} for t in (program, hyper)]
        if sites[0] != sites[1]:
            raise PriorError(
                f"{told}: for group {name!r} the program has the hyper-sites {sorted(sites[0])}, and its "
                f"guide {sorted(sites[1])}: sample the same in guide(group, q, alive)."
            )
        try:
            drawn = bool(gates.log_prob(posterior.sample(torch.Size([8]))).isfinite().all())
        except ValueError:  # outside of the support
            drawn = False
        if not drawn:
            raise PriorError(
                f"{told}: for group {name!r} the guide draws gates to which the prior gives no density: let "
                "both live on the same numbers."
            )
        if type(prior).nats is ContinuousPrior.nats and not _is_known(posterior, gates):
            warnings.warn(
                f"{told}: no closed form is known for the divergence of {type(posterior).__name__} from "
                f"{type(gates).__name__}, so that every step takes it from {DRAWS} draws: unbiased, and "
                "noisy. Give the prior a method nats(group, q, alive) if you know one.",
                PriorWarning,
                stacklevel=level(),
            )


def _is_known(q: TorchDistribution, p: TorchDistribution) -> bool:
    try:
        kl_divergence(q, p)
    except NotImplementedError:
        return False
    return True


BOUND = 30.0
"""Log-odds whose sigmoid is one in single precision."""


def key_of(group: str) -> str:
    """A group's name as a module's: those must not hold dots."""
    return group.replace(".", "|")


def _weighed(prior: ContinuousPrior) -> AbstractContextManager[Any]:
    return nullcontext() if prior.weight == 1.0 else poutine.scale(scale=prior.weight)
