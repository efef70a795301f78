"""The guide of hyper-sites that a user's prior does not bring one for: Normals in unconstrained space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import biject_to

from bayesprune.errors import BayespruneError, PriorError
from bayesprune.structure.groups import Group


class DefaultGuide(nn.Module):
    """q(hyper-sites) = Π Normal(loc, scale²), pushed through the bijection onto each site's support.

    Args:
        prior: the prior program; where it has its own ``guide`` this one stays empty.
        groups: the groups that it will be asked about.
        dtype: of the parameters.

    Raises:
        PriorError: a hyper-site is discrete, and so needs a guide written for it.
    """

    def __init__(
        self, prior: Callable[[Group], TorchDistribution], groups: Sequence[Group], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.loc = nn.ParameterDict()
        self.log_scale = nn.ParameterDict()
        self._sites: dict[str, list[tuple[str, dist.constraints.Constraint]]] = {}
        for group in groups:
            if hasattr(member(prior, group), "guide"):
                continue
            self._sites[group.name] = []
            for name, fn in _hyper_sites(prior, group):
                to_support = biject_to(fn.support)
                start = to_support.inv(torch.stack([fn.sample() for _ in range(64)])).mean(0).to(dtype)
                self._sites[group.name].append((name, fn.support))
                self.loc[_key(name)] = nn.Parameter(start)
                self.log_scale[_key(name)] = nn.Parameter(torch.full_like(start, -2.0))

    def forward(self, group: Group) -> dict[str, Tensor]:
        """Sample the hyper-sites of one group.

        Args:
            group: the group.

        Returns:
            Site name → value.
        """
        values = {}
        for name, support in self._sites.get(group.name, ()):
            loc, scale = self.loc[_key(name)], self.log_scale[_key(name)].exp()
            base = dist.Normal(loc, scale)
            values[name] = pyro.sample(
                name, dist.TransformedDistribution(base, [biject_to(support)]).to_event()
            )
        return values


def member(prior: Any, group: Group) -> Any:
    """The prior that holds for one group, where a prior (``PerGroup``) stands for several."""
    return prior.of(group) if hasattr(prior, "of") else prior


def _key(site: str) -> str:
    """A site's name as a parameter's: those must not hold dots."""
    return site.replace(".", "|")


def _hyper_sites(prior: Callable[[Group], TorchDistribution], group: Group) -> list[tuple[str, Any]]:
    with torch.random.fork_rng(devices=[]), torch.no_grad(), poutine.block():
        try:
            trace = poutine.trace(prior).get_trace(group)
        except (BayespruneError, NotImplementedError):
            raise
        except Exception as problem:  # whatever a user's program does
            raise PriorError(
                f"The prior fails for group {group.name!r}: {type(problem).__name__}: {problem}. It is "
                "called with the group, and returns a distribution over its gates."
            ) from problem
    sites: list[tuple[str, Any]] = []
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site["is_observed"] and not isinstance(site["fn"], dist.Delta):
            fn: Any = site["fn"]
            if fn.support.is_discrete:
                raise PriorError(
                    f"Hyper-site {name!r} of the prior is discrete ({type(fn).__name__}), and the "
                    "default guide is Gaussian: give the prior a method guide(group, inclusion_prob) that "
                    "samples it, or make it continuous."
                )
            sites.append((name, fn))
    return sites
