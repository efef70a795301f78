"""The posterior as a value: one fit or several, from which draws in ArviZ's form are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.posterior.arviz import wrap
from bayesprune.posterior.chain import Chain, run_chain, run_samples
from bayesprune.posterior.datasets import assemble
from bayesprune.posterior.draws import draw_prior, quiet
from bayesprune.posterior.rows import Asked, check_asked
from bayesprune.posterior.sizes import Sizes, sizes_of
from bayesprune.ranges import check_seed, is_whole
from bayesprune.rows import Source
from bayesprune.svi.result import FitResult
from bayesprune.svi.threads import threads_for, using_threads


@dataclass(frozen=True)
class Posterior:
    """What one fit, or several independent fits of the same network, have learnt.

    Attributes:
        fits: one a chain.

    Example:
        >>> import bayesprune as bp
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))
        >>> gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=100))
        >>> idata = bp.Posterior.of([gated, gated]).to_arviz(draws=50)
        >>> idata["posterior"]["gate/input"].shape
        (2, 50, 4)
    """

    fits: tuple[FitResult, ...]

    @staticmethod
    def of(results: FitResult | GatedModel | Sequence[FitResult | GatedModel], at: str = "end") -> Posterior:
        """The posterior of one fit, or of several of the same network.

        Args:
            results: of ``fit``, or gated models, which have no history.
            at: ``"end"``, or ``"decision"`` for gates and weights as they were just before gates were
                decided.

        Raises:
            PosteriorError: none, something else, or networks whose groups differ; or a fit has not kept what
                it knew at the decision.
        """
        given = list(results) if isinstance(results, Sequence) else [results]
        wrong = [type(r).__name__ for r in given if not isinstance(r, FitResult | GatedModel)]
        if wrong or not given:
            raise PosteriorError(
                f"Posterior.of takes the results of fit(), and got {', '.join(wrong) or 'none'}."
            )
        fits = tuple(r if isinstance(r, FitResult) else FitResult(r, (), 0.0, 0, None) for r in given)
        first = [(g.name, g.size) for g in fits[0].gated.groups]
        for number, fit in enumerate(fits[1:], start=1):
            groups = [(g.name, g.size) for g in fit.gated.groups]
            if groups != first:
                differs = sorted(set(first) ^ set(groups))
                raise PosteriorError(
                    f"Fit {number} is of another network than fit 0 (groups and sizes that only one has: "
                    f"{differs}): chains are independent fits of the same network."
                )
        return Posterior(tuple(_seen_at(fit, at) for fit in fits))

    def to_arviz(
        self,
        draws: int = 1000,
        thin: int = 1,
        seed: int = 0,
        weights: bool = False,
        prior: int = 500,
        rows: Source | None = None,
        observed: bool = False,
    ) -> Any:
        """Draws of the guide in ArviZ's form: a chain is an independent fit, a draw one from its guide.

        Without rows no data are looked at. Units that were removed stay in the arrays, at zero. A sampler's
        draws (``FitResult.samples``, of ``posterior("decision")``) are what it drew, in its order, with the
        weights that each had; their ``log_q`` is known up to a constant, log p(rows).

        Args:
            draws: from each fit; of a sampler's, the first ones, as many as there are at most.
            thin: keep every so many of them.
            seed: of the draws; torch's own random state is left alone.
            weights: the weights that have a posterior, too.
            prior: draws from the prior, as it was for the first fit at its end; 0 for none.
            rows: to predict, as ``fit`` takes them, at a cost of a forward pass for each distinct mask
                (each draw, where weights have a posterior). With targets ``sample_stats`` has the ELBO of
                each draw; inputs alone are predicted, and nothing else.
            observed: keep the targets of these rows in ``observed_data``, in the shape of drawn ones, as
                ``az.plot_ppc`` wants them.

        Returns:
            ``arviz.InferenceData`` (ArviZ 0.x) or ``xarray.DataTree`` (1.x, names with ``:`` for ``/``).
            Groups ``posterior`` (``gate/<group>``, ``inclusion_prob/<group>``, hyper-sites, weights),
            ``sample_stats`` (``lp``, ``log_q``, nats; ``macs``, ``parameters`` of each draw's mask),
            ``prior``, ``history`` (over epochs, NaN where a fit had fewer), ``constant_data``, and with rows
            ``posterior_predictive`` and, where they have targets, ``log_likelihood``.

        Raises:
            DataError: rows that are none, not whole, or not like those that the network was gated on.
            PosteriorError: a number out of range, or weights of different shapes.
        """
        _check_numbers(draws=draws, thin=thin)
        check_seed(seed, PosteriorError)
        if not is_whole(prior) or prior < 0:
            raise PosteriorError(f"prior={prior!r}: a whole number of draws, or 0 for none.")
        if observed and rows is None:
            raise PosteriorError("observed=True keeps the targets of rows=, and there are none: give rows=.")
        pair = None if rows is None else check_asked(self.fits[0].gated, rows)
        if observed and pair is not None and pair[1] is None:
            raise PosteriorError("observed=True keeps the targets of rows=, which are inputs alone.")
        chains = [self.chain(number, draws, thin, seed, weights, pair) for number in range(len(self.fits))]
        return wrap(assemble(self.fits, chains, thin, self._prior(prior, seed), pair if observed else None))

    def sizes(self, draws: int = 10_000, seed: int = 0) -> Sizes:
        """How large the network may be under independent gates: units by group and in all, parameters, MACs.

        Numbers of units are exact, sums of independent gates. So are parameters and MACs where they are
        linear in the gates that are undecided (those of one layer's units, say); else masks are drawn.
        Several fits count equally.

        Args:
            draws: of masks, where they are needed.
            seed: of them.

        Raises:
            PosteriorError: a number out of range.

        Example:
            >>> import bayesprune as bp
            >>> network = torch.nn.Sequential(torch.nn.Linear(4, 3))
            >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))
            >>> gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=100))
            >>> gated.log_odds.data.zero_()
            tensor([0., 0., 0., 0.])
            >>> sizes = bp.Posterior.of(gated).sizes()
            >>> sizes.kept["input"].probs.tolist(), sizes.macs.interval(0.8)
            ([0.0625, 0.25, 0.375, 0.25, 0.0625], (3.0, 9.0))
        """
        _check_numbers(draws=draws)
        check_seed(seed, PosteriorError)
        return sizes_of([fit.gated for fit in self.fits], draws, seed)

    def chain(
        self, number: int, draws: int, thin: int, seed: int, weights: bool, rows: Asked | None
    ) -> Chain:
        """Draws of one of the fits as tensors, of which ``to_arviz`` makes groups.

        Args:
            number: of the fit.
            draws: how many.
            thin: keep every so many of them.
            seed: of the draws; torch's own random state is left alone.
            weights: keep the weights that have a posterior, too.
            rows: (inputs, targets) from ``check_asked``, or None.
        """
        gated = self.fits[number].gated
        threads = threads_for(gated.dense_macs, 1 if rows is None else len(rows[0]), learns=False)
        with using_threads(threads), quiet(gated):
            torch.manual_seed(_seed(seed, number))
            samples = self.fits[number].samples
            if samples is not None:
                return run_samples(gated, samples, draws, thin, weights, rows)
            return run_chain(gated, draws, thin, weights, rows)

    def _prior(self, draws: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
        if not draws:
            return None
        gated = self.fits[0].gated
        with quiet(gated):
            torch.manual_seed(_seed(seed, -1))
            return draw_prior(gated, draws)


def to_arviz(result: FitResult | GatedModel, draws: int = 1000, seed: int = 0) -> Any:
    """Draws of one fit, with the weights that have a posterior: the group ``posterior`` alone.

    Args:
        result: of a fit, or a gated model.
        draws: how many, in one chain.
        seed: of the draws.

    Returns:
        ``arviz.InferenceData`` (ArviZ 0.x) or ``xarray.DataTree`` (1.x): variables ``gate/<group>`` of
        dimensions (chain, draw, <group>_unit), units by their number in the dense network, and the other
        latent sites by their Pyro names. ``result.posterior().to_arviz()`` has the other groups.

    Example:
        >>> import bayesprune as bp
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))
        >>> gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=100))
        >>> to_arviz(gated, draws=50).posterior["gate/input"].shape
        (1, 50, 4)
    """
    from bayesprune.posterior.arviz import unwrap

    groups = unwrap(Posterior.of(result).to_arviz(draws, seed=seed, weights=True, prior=0))
    kept = groups["posterior"]
    return wrap({"posterior": kept.drop_vars([v for v in kept if str(v).startswith("inclusion_prob/")])})


def _seen_at(fit: FitResult, at: str) -> FitResult:
    """A fit as it was at its end, or before its gates were decided."""
    if at not in ("end", "decision"):
        raise PosteriorError(f"at={at!r} must be 'end' or 'decision'.")
    if at == "end":
        return fit if fit.samples is None else replace(fit, samples=None)
    if fit.at_decision is None:
        why = "left its gates undecided: take at='end'" if fit.left_undecided else (
            "has kept nothing of a decision: it had none, or an earlier version of bayesprune began it"
        )  # fmt: skip
        raise PosteriorError(f"at='decision': the fit {why}.")
    return FitResult(
        fit.at_decision, fit.history, fit.seconds, 0, None, left_undecided=True, samples=fit.samples
    )


def _check_numbers(**numbers: int) -> None:
    wrong = [f"{name}={value!r}" for name, value in numbers.items() if not is_whole(value) or value < 1]
    if wrong:
        raise PosteriorError(f"{', '.join(wrong)}: must be a whole number, at least 1.")


def _seed(seed: int, chain: int) -> int:
    """Independent streams for the chains and for the prior, from one seed."""
    return int(np.random.SeedSequence([seed, chain + 1]).generate_state(1, np.uint64)[0]) >> 1
