"""Simulation-based calibration: does an inference find what data were made with, as often as it says?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor
from tqdm import tqdm

from bayesprune.errors import SettingsError
from bayesprune.gated import GatedModel
from bayesprune.posterior.diagnose.calibrated import FALSE_ALARM, rank_uniformity, sbc_rank
from bayesprune.posterior.rows import Rows
from bayesprune.structure.copying import copy_of
from bayesprune.terminal import bar_hidden

Sites = Mapping[str, Tensor]
Statistics = Callable[[Sites], Mapping[str, float]]
Guide = Callable[..., Any]
Infer = Callable[[GatedModel, Rows], Guide]


@dataclass(frozen=True)
class Ranks:
    """Ranks of what data were made with among posterior draws, uniform on 0 … draws if all is well.

    Attributes:
        ranks: statistic → (simulations,).
        draws: of the posterior in each simulation.
    """

    ranks: Mapping[str, np.ndarray[Any, Any]]
    draws: int

    def uniformity(self) -> dict[str, float]:
        """Statistic → p-value of the χ² test for uniform ranks; each by itself, not corrected for number."""
        return {name: rank_uniformity(ranks, self.draws) for name, ranks in self.ranks.items()}

    def outermost(self) -> dict[str, float]:
        """Statistic → share of ranks in the outer fifth on either side together; 0.4 if all is well.

        More: the posterior is too narrow. Less: it is too wide.
        """
        edge = (self.draws + 1) / 5
        return {
            name: float(np.mean((r + 0.5 < edge) | (r + 0.5 > self.draws + 1 - edge)))
            for name, r in self.ranks.items()
        }

    def __str__(self) -> str:
        simulations = len(next(iter(self.ranks.values())))
        lines = [
            f"Ranks of {simulations} simulations among {self.draws} draws",
            f"  {'statistic':24} {'p (uniform)':>11} {'outer two fifths':>17}",
        ]
        outermost, level = self.outermost(), FALSE_ALARM / len(self.ranks)
        for name, p in self.uniformity().items():
            side = "too narrow" if outermost[name] > 0.4 else "too wide"
            said = "uniform" if p >= level else f"not uniform: {side}, or off to a side"
            lines.append(f"  {name:24} {p:11.2g} {100 * outermost[name]:15.0f} %  {said}")
        return "\n".join(lines)


def simulate_ranks(
    gated: GatedModel,
    x: Tensor,
    infer: Infer,
    statistics: Statistics | None = None,
    *,
    simulations: int = 100,
    draws: int = 99,
    seed: int = 0,
    progress: bool = True,
) -> Ranks:
    """Draw gates, hyper-sites, weights and targets from the model; infer; rank what was drawn. Many times.

    Talts et al., arXiv 1804.06788: if θ ~ p(θ) and y ~ p(y | θ), the rank of f(θ) among draws from p(θ | y)
    is uniform, whatever f is. Only a proper prior of *all* sites can be simulated, and only a guide of all of
    them can be right: weights that are learnt as points make it too narrow, which then shows.

    Args:
        gated: the model, as ``gate`` made it; every simulation infers in a copy of it.
        x: (rows, ...), the inputs; as many as the likelihood counts.
        infer: ``infer(gated, (x, y))`` → a Pyro guide, as ``gated.guide`` or a ``StructuredGuide`` that was
            trained; it is called as ``guide(x)``.
        statistics: of a draw of all sites by name; by default how many units are kept in each group, and
            every hyper-site that is a single number.
        simulations: how many; χ² with ten bins wants at least 50.
        draws: from each guide.
        seed: of everything.
        progress: whether to show a bar.

    Returns:
        The ranks. Give ``(ranks.ranks[name], ranks.draws)`` as ``ranks=`` to ``diagnose``.

    Raises:
        SettingsError: fewer than 50 simulations or 9 draws, or rows that are not the likelihood's.

    Example:
        >>> from torch import nn
        >>> import bayesprune as bp
        >>> prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.3))
        >>> weights = bp.priors.NormalWeights(1.0, posterior="normal")
        >>> likelihood, x = bp.Gaussian(rows=20, scale=1.0, learn_scale=False), torch.randn(20, 3)
        >>> network = nn.Sequential(nn.Linear(3, 1))
        >>> gated = bp.gate(network, x[:1], prior=prior, likelihood=likelihood, weights=weights)
        >>> ranks = simulate_ranks(gated, x, lambda model, rows: model.guide, simulations=50, progress=False)
        >>> list(ranks.ranks)
        ['kept/input']
    """
    _check(gated, x, simulations, draws)
    measure, generator = statistics or _kept, np.random.default_rng(seed)
    ranks: dict[str, list[int]] = {}
    with torch.random.fork_rng(devices=[]), tqdm(total=simulations, disable=bar_hidden(progress)) as bar:
        for number in range(simulations):
            pyro.set_rng_seed(seed + number)
            twin = copy_of(gated).eval()
            with torch.no_grad():
                truth = _sites(twin.model, x)
            guide = infer(twin, (x, truth.pop("y")))
            with torch.no_grad():
                drawn = [measure(_sites(guide, x)) for _ in range(draws)]
            for name, value in measure(truth).items():
                values = np.array([draw[name] for draw in drawn])
                ranks.setdefault(name, []).append(sbc_rank(value, values, generator))
            bar.update()
    return Ranks({name: np.array(values) for name, values in ranks.items()}, draws)


def _sites(program: Guide, x: Tensor) -> dict[str, Tensor]:
    """Every site that is drawn, by name; one run of the program."""
    trace: Any = poutine.trace(program).get_trace(x)
    return {
        name: site["value"]
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not type(site["fn"]).__name__.startswith("_Subsample")
    }


def _kept(sites: Sites) -> dict[str, float]:
    """Units kept in each group, and single numbers among the hyper-sites."""
    found = {}
    for name, value in sites.items():
        if name.startswith("gate/"):
            found[f"kept/{name.removeprefix('gate/')}"] = float(value.sum())
        elif value.numel() == 1 and not name.startswith(("weight/", "noise/", "removed/", "closed/")):
            found[name] = float(value)
    return found


def _check(gated: GatedModel, x: Tensor, simulations: int, draws: int) -> None:
    wrong = []
    if simulations < 50:
        wrong.append(f"simulations={simulations}: ten bins of ranks need at least 50.")
    if draws < 9:
        wrong.append(f"draws={draws}: ten bins of ranks need at least 9 draws.")
    if len(x) != gated.likelihood.rows:
        wrong.append(
            f"x has {len(x)} rows and the likelihood counts {gated.likelihood.rows}: targets are drawn for "
            f"all of them, so make it with rows={len(x)}."
        )
    if gated.likelihood.plain is not gated.likelihood:
        wrong.append(
            "the likelihood learns from a teacher, who knows nothing of targets that are drawn: gate with "
            f"{type(gated.likelihood.plain).__name__} alone."
        )
    if not bool(gated.alive.all()):
        wrong.append("units were removed from this model: take it as gate() returned it.")
    if wrong:
        raise SettingsError("Ranks cannot be simulated:\n" + "\n".join(f"- {text}" for text in wrong))
