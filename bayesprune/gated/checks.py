"""What is asked of gate, checked before anything is traced: place, value, remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from bayesprune.errors import PriorError, SettingsError, UnsupportedNetworkError
from bayesprune.gated.precision import check_precision, refuse_autocast
from bayesprune.likelihoods import Likelihood
from bayesprune.likelihoods.parts import part_of
from bayesprune.priors import NormalWeights
from bayesprune.rows import Call, finite_example, run
from bayesprune.structure.altered import check_gradients, check_no_global_hooks
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.graph.analysis.sections import LAYER_GATES
from bayesprune.structure.running import check_plain, evaluating


def check_settings(*, prior: Any, weights: Any, exclude: Any, layers: Any, inputs: Any) -> tuple[str, ...]:
    """Prior, weights, exclusions and layers must be of their kinds.

    Returns:
        The names to exclude.

    Raises:
        PriorError: the prior can be neither called nor bound, or ``weights`` is no prior of weights.
        SettingsError: names that are none.
    """
    check_prior(prior)
    if not (weights is None or isinstance(weights, NormalWeights)):
        raise PriorError(f"weights={weights!r} is no prior of weights: give bp.priors.NormalWeights(...).")
    names = names_of(exclude)
    if layers not in LAYER_GATES:
        raise SettingsError(f"layers={layers!r} is none of {', '.join(map(repr, LAYER_GATES))}.")
    if inputs not in (None, True, False):
        raise SettingsError(f"inputs={inputs!r} is none of None, True, False.")
    return names


def names_of(exclude: Any) -> tuple[str, ...]:
    """Names or globs of groups; one by itself is one name, not its letters.

    Raises:
        SettingsError: they are none.
    """
    exclude = (exclude,) if isinstance(exclude, str) else exclude
    names = tuple(exclude) if isinstance(exclude, Iterable) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise SettingsError(
            f"exclude={exclude!r} must be names or globs of groups, such as ['input', 'fc*']."
        )
    return names


def check_prior(prior: Any) -> None:
    """A prior of gates must be one that can be called, or bound to a network.

    Raises:
        PriorError: it is not.
    """
    if isinstance(prior, type) or not (callable(prior) or callable(getattr(prior, "bind", None))):
        raise PriorError(
            f"prior={prior!r} is no prior: give a function of a group that returns a distribution over its "
            "gates, such as bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))."
        )


def checked_input(network: Any, example: Any) -> Call:
    """The example as a call, after a look at what is handed over with it.

    Args:
        network: the user's.
        example: (rows, ...), in any form that ``gate`` takes.

    Raises:
        UnsupportedNetworkError: no network, one with hooks that change gradients, or numbers in which nothing
            can be learnt.
        DataError: an example that is none.
        SettingsError: autocast is on.
    """
    check_plain(network, "gate")
    check_no_global_hooks("gate")
    check_gradients(network, "gate")
    x = finite_example(network, example)
    refuse_autocast("gate", x.device.type)
    check_precision(network, x)
    return x


def read_part_(network: GraphNetwork, likelihood: Likelihood) -> None:
    """Let a working copy return what a likelihood reads.

    Args:
        network: returns that, from now on.
        likelihood: which names it.

    Raises:
        LikelihoodError: there is no such part, or none is named and there are several.
    """
    who = type(likelihood).__name__
    network.reads_(lambda outputs: part_of(outputs, likelihood.output, who), not likelihood.by_row)


def check_outputs(network: nn.Module, user: nn.Module, example: Call) -> None:
    """What is read of a network must be a tensor of one output a row.

    Args:
        network: the working copy.
        user: the user's network, which messages name.
        example: (rows, ...), inputs.

    Raises:
        UnsupportedNetworkError: it returns something else.
    """
    with evaluating(network):
        outputs = run(network, example.clone().alone)
    if isinstance(outputs, Tensor) and outputs.ndim and len(outputs) == len(example):
        return
    found = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else _told(outputs)
    raise UnsupportedNetworkError(
        f"{type(user).__name__} returns {found} for {len(example)} rows, and a likelihood reads one tensor "
        "(rows, ...): say which part of the outputs that is, output='logits' or output=0 of the likelihood; "
        "or let forward return it with the rows first."
    )


def _told(outputs: Any) -> str:
    parts = list(outputs) if hasattr(outputs, "__len__") else []
    return f"a {type(outputs).__name__} of {len(parts)} parts"
