"""Methods of a table: each learns a program's network on its rows, at one of its settings and a seed."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from bayesprune import baseline
from bayesprune.baseline import Limit, Plan, Rival
from bayesprune.errors import SettingsError
from bayesprune.gated import GatedModel, gate
from bayesprune.likelihoods import Categorical
from bayesprune.programs import load_inference
from bayesprune.reproduce.setup import Learnt, Setup
from bayesprune.selection.masks import Masks
from bayesprune.structure.graph.analysis.sections import LAYERS
from bayesprune.svi import FitResult, evaluate, fit

FORWARD_AND_BACK = 3
"""A step takes about three forward passes: its own, and two of as many products back."""
APART = 2**31
"""From a seed to that of first weights that have nothing to do with it."""


@dataclass(frozen=True)
class Gates:
    """A program's gated model under its inference, at the program's prices times the setting.

    Attributes:
        model: further settings of the program's ``model``.
        prior: (setup, the program's model, setting) → prior of the same network from the same first weights,
            where it is not the program's own; units then have no noise but their gates'.
        posterior: of the weights under such a prior.
        gating: what else ``gate`` is told then, where the program tells it.
        inference: a program's name; every epoch is scored where its ``infer`` takes ``validation``.
    """

    name: str
    settings: tuple[float, ...] = (1.0, 1.4, 2.0)
    setting: str = "prices ×"
    beside: None = None
    needs: None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    prior: Callable[[Setup, GatedModel, float], Any] | None = None
    posterior: Literal["delta", "normal"] = "delta"
    gating: Mapping[str, Any] = field(default_factory=dict)
    inference: str | None = None

    def learn(self, setup: Setup, value: float, seed: int, other: Learnt | None) -> Learnt:
        """See ``Method``."""
        gated = self.gated(setup, value, seed)
        test = (setup.test.x, setup.test.y)
        began = time.process_time()
        if self.inference is None:
            result = fit(
                gated, (setup.train.x, setup.train.y), epochs=setup.epochs, batch_size=setup.batch_size,
                seed=seed, recipe=setup.recipe, validation=test, progress=False,
            )  # fmt: skip
        else:
            infer = load_inference(self.inference).infer
            scored = {"validation": test} if "validation" in inspect.signature(infer).parameters else {}
            result = infer(
                gated, setup.train, epochs=setup.epochs, batch_size=setup.batch_size, seed=seed,
                recipe=setup.recipe, device="cpu", checkpoint=None, resume=False, progress=False, **scored,
            )  # fmt: skip
        return of_fit(setup, gated, result, time.process_time() - began)

    def gated(self, setup: Setup, value: float, seed: int) -> GatedModel:
        """The model that is fitted.

        Args:
            setup: rows and program.
            value: of the setting.
            seed: of its first weights.
        """
        if self.prior is None:
            return setup.gated(seed, value, **self.model)
        whole = setup.gated(seed, **self.model)
        prior = self.prior(setup, whole, value)
        weights = replace(whole.weights, posterior=self.posterior)
        network, likelihood = whole.network.plain(), Categorical(rows=len(setup.train))
        return gate(
            network, setup.train.x[:1], prior=prior, likelihood=likelihood, weights=weights, **self.gating
        )


def of_fit(setup: Setup, gated: GatedModel, result: FitResult, processor_seconds: float) -> Learnt:
    """Figures of a fit.

    Args:
        setup: of it.
        gated: before it.
        result: of it.
        processor_seconds: that it took, with the scoring of its epochs.
    """
    quality = evaluate(result, (setup.test.x, setup.test.y))
    alive = result.gated.by_group(result.gated.alive)
    share = sum(epoch.macs_percent for epoch in result.history) / 100
    errors = [epoch.validation for epoch in result.history if epoch.validation is not None]
    return Learnt(
        kept={name: mask.nonzero().squeeze(1).tolist() for name, mask in alive.items()},
        parameters=result.gated.network.parameter_count(),
        macs=result.gated.network.macs(),
        dense_parameters=gated.dense_parameters,
        dense_macs=gated.dense_macs,
        error=quality.score,
        errors=[*errors[:-1], quality.score] if errors else [],  # the last one with its weights averaged
        nll=quality.nll,
        training_macs=FORWARD_AND_BACK * share * gated.dense_macs * len(setup.train),
        seconds=result.seconds,
        processor_seconds=processor_seconds,
        undecided=result.undecided,
        held_out_error=setup.held_out_error(result),
        sections=None if LAYERS not in alive else [int(alive[LAYERS].sum()), len(alive[LAYERS])],
    )


@dataclass(frozen=True)
class WithoutGates:
    """A network that a plain loop learns, at the program's learning rates times the setting.

    Attributes:
        kind: which of the baselines.
        beside: the method that it is as small as.
    """

    name: str
    kind: str
    beside: str | None = None
    settings: tuple[float, ...] = (1.0, 0.5, 0.25)
    setting: str = "learning rate ×"
    needs: None = None

    def learn(self, setup: Setup, value: float, seed: int, other: Learnt | None) -> Learnt:
        """See ``Method``."""
        if self.beside is not None and other is None:
            raise SettingsError(f"{self.name} is fitted to {self.beside}, of which there is no training.")
        gated, fresh = setup.gated(seed), setup.gated((seed + APART) % 2**32)
        plan = setup.plan(seed, value)
        rival = self._rival(gated, fresh, plan, other)
        figures = rival.figures((setup.test.x, setup.test.y))
        return Learnt(
            kept={} if self.kind != "from_scratch" or other is None else other.kept,
            parameters=rival.parameters,
            macs=rival.macs,
            dense_parameters=gated.dense_parameters,
            dense_macs=gated.dense_macs,
            error=figures["test_error_percent"],
            errors=list(rival.scores),
            nll=figures["test_nll"],
            training_macs=FORWARD_AND_BACK * float(sum(rival.epoch_macs)) * len(setup.train),
            seconds=rival.seconds,
            processor_seconds=rival.processor_seconds,
            held_out_error=setup.held_out_error(rival.network, rival.likelihood),
        )

    def _rival(self, gated: GatedModel, fresh: GatedModel, plan: Plan, other: Learnt | None) -> Rival:
        if self.kind == "dense" or other is None:
            return baseline.dense(gated, plan)
        limit = Limit("parameters", other.parameters)
        if self.kind == "small_dense":
            return baseline.small_dense(fresh, plan, limit)
        if self.kind == "from_scratch":
            return baseline.from_scratch(fresh, plan, masks_of(fresh, other))
        return baseline.magnitude(gated, plan, limit, cuts=10, inputs=True)


def masks_of(gated: GatedModel, other: Learnt) -> Masks:
    """Units that a training kept, as masks of the same network before any of it.

    Args:
        gated: that network.
        other: the training.
    """
    masks: Masks = {}
    for group in gated.groups:
        masks[group.name] = torch.zeros(group.size, dtype=torch.bool)
        masks[group.name][torch.tensor(other.kept[group.name], dtype=torch.long)] = True
    return masks
