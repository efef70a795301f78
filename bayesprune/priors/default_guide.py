"""The guide of hyper-sites that a user's prior does not bring one for: Normals in unconstrained space."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import biject_to

from bayesprune.priors.one_program import StoredParameters, parameter_name
from bayesprune.priors.sites import Sites, looked_at
from bayesprune.priors.summed import blocks_of
from bayesprune.structure.groups import Group


@dataclass(frozen=True)
class _Site:
    """A hyper-site that has a Normal.

    Attributes:
        name: of the site.
        support: where its values live.
        event_dim: how many of its dimensions are one event; the others belong to its plates.
        plates: name, size and dimension of each.
    """

    name: str
    support: dist.constraints.Constraint
    event_dim: int
    plates: tuple[tuple[str, int, int], ...]


class DefaultGuide(nn.Module):
    """q(hyper-sites) = Π Normal(loc, scale²), pushed through the bijection onto each site's support.

    It holds what a prior needs beside itself in order to be learnt: these Normals, and the parameters that
    the prior or its own guide asks Pyro's store for.

    Args:
        prior: the prior program; where it has its own ``guide`` there are no Normals.
        groups: the groups that it will be asked about.
        dtype: of the parameters.

    Attributes:
        loc: hyper-site → where its Normal is, in unconstrained space.
        log_scale: hyper-site → log standard deviation there.
        stored: what ``pyro.param`` reads.
        summed: names of discrete hyper-sites, which are summed out.
        by_group: group → names of the hyper-sites that its program names.
        summed_by: group → those of them that its program names.
        shared: names of sites that several groups name.
        together: groups by the sites that they share: no site leads from one tuple to another.

    Raises:
        PriorError: the program fails, or cannot be meant; see :mod:`bayesprune.priors.sites`.
    """

    def __init__(self, prior: Any, groups: Sequence[Group], dtype: torch.dtype) -> None:
        super().__init__()
        self.loc = nn.ParameterDict()
        self.log_scale = nn.ParameterDict()
        self.stored = StoredParameters()
        found: Sites = looked_at(prior, groups, self.stored, dtype)
        self.stored.open = False
        self.summed, self.shared, self.by_group = found.summed, found.shared, dict(found.by_group)
        self.summed_by = {group.name: found.by_group[group.name] & found.summed for group in groups}
        self.together = blocks_of({group.name: found.by_group[group.name] & found.shared for group in groups})
        self._sites: dict[str, list[_Site]] = {group.name: [] for group in groups}
        for name, (site, named_by) in found.normal.items():
            fn: Any = site["fn"]
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                draws = torch.stack([fn.sample() for _ in range(64)])
                places = biject_to(fn.support).inv(draws)  # infinite where rounding put a draw on the edge
                start = torch.where(places.isfinite(), places, torch.nan).nanmean(0).nan_to_num(0.0).to(dtype)
            plates = tuple((f.name, f.size, f.dim) for f in site["cond_indep_stack"] if f.vectorized)
            for group_name in named_by:
                self._sites[group_name].append(_Site(name, fn.support, fn.event_dim, plates))
            self.loc[parameter_name(name)] = nn.Parameter(start)
            self.log_scale[parameter_name(name)] = nn.Parameter(torch.full_like(start, -2.0))

    def forward(self, group: Group) -> dict[str, Tensor]:
        """Sample the hyper-sites of one group.

        Args:
            group: the group.

        Returns:
            Site name → value.
        """
        values = {}
        for site in self._sites.get(group.name, ()):
            key = parameter_name(site.name)
            base = dist.Normal(self.loc[key], self.log_scale[key].exp())
            carried = dist.TransformedDistribution(base, [biject_to(site.support)])
            with ExitStack() as stack:
                for name, size, dim in site.plates:
                    stack.enter_context(pyro.plate(name, size, dim=dim))
                more = site.event_dim - carried.event_dim
                values[site.name] = pyro.sample(site.name, carried.to_event(more) if more else carried)
        return values
