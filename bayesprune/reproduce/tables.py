"""The tables that can be asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bayesprune.errors import SettingsError
from bayesprune.priors import (
    Flattening,
    GaussianGates,
    HardConcreteGates,
    LogNormalGates,
    NormalJeffreysGates,
)
from bayesprune.priors.program import Prior
from bayesprune.reproduce.methods import Gates, Method, Setup, WithoutGates
from bayesprune.reproduce.published import ON_LENET5, ON_MLP, ON_SPIKE_SLAB, Published

OURS = "bayesprune, Bernoulli gates"
"""The first line of each table, which the baselines are as small as."""


@dataclass(frozen=True)
class Table:
    """What is learnt, by whom, and what was published.

    Attributes:
        name: as it is asked for.
        title: a line.
        program: the model file.
        data: name of the data.
        methods: a line each; whom another is fitted to comes before it.
        published: rows of papers.
        most_parameters: a setting is chosen among those that keep no more than this, percent; the smallest
            where there is none.
        held_out: training rows that settings are chosen by: as many, or a share.
        quick_epochs: on the digits, for ``--quick``.
    """

    name: str
    title: str
    program: str
    data: str
    methods: tuple[Method, ...] = field(repr=False)
    published: tuple[Published, ...] = field(default=(), repr=False)
    most_parameters: float = 100.0
    held_out: float = 1 / 12
    quick_epochs: int = 40


BASELINES = (
    WithoutGates("dense", "dense"),
    WithoutGates("small dense, all widths alike", "small_dense", OURS),
    WithoutGates("the kept shape, from scratch", "from_scratch", OURS),
    WithoutGates("magnitude, ten cuts, inputs too", "magnitude", OURS),
)

FACTORS = (5.0, 20.0, 80.0)
"""Weights of a divergence: nats of 60,000 rows for each nat of one's, and of fewer rows less, as prices."""


def _hard_concrete(setup: Setup, scale: float) -> HardConcreteGates:
    prices = setup.program.prices(len(setup.train))
    return HardConcreteGates(Flattening({group: scale * nats for group, nats in prices.items()}))


def _factors(name: str, make: Callable[[float], Prior], **settings: Any) -> Gates:
    def prior(setup: Setup, weight: float) -> Prior:
        return make(weight * (len(setup.train) / 60_000) ** 0.75)

    return Gates(name, FACTORS, "weight", prior=prior, **settings)


CONTINUOUS = (
    _factors("Gaussian gates (VIB)", GaussianGates),
    _factors("log-normal gates (SBP)", LogNormalGates),
    _factors("log-normal gates, BMRS", partial(LogNormalGates, rule="bmrs_normal")),
    _factors("log-normal gates, BMRS, uniform", partial(LogNormalGates, rule="bmrs_uniform")),
    _factors("normal-Jeffreys gates (BC-GNJ)", NormalJeffreysGates, posterior="normal"),
    Gates("hard concrete gates (L0)", (0.5, 1.0, 2.0), prior=_hard_concrete),
)
"""Published families of gates that are factors, under this library's engine and schedule, not their own."""

_ALL = (
    Table(
        "mnist-mlp", "LeNet-300-100 on MNIST", "lenet_300_100", "mnist",
        (Gates(OURS), *BASELINES, *CONTINUOUS), ON_MLP, most_parameters=5.6,
    ),
    Table(
        "mnist-lenet5", "LeNet-5-Caffe on MNIST", "lenet5", "mnist",
        (Gates(OURS, (0.7, 1.0, 1.4)), *BASELINES, *CONTINUOUS), ON_LENET5, most_parameters=1.6,
    ),
    Table(
        "spike-slab", "LeNet-300-100 on MNIST, spike-and-slab", "lenet_300_100_spike_slab", "mnist",
        (
            Gates("spike-and-slab, layer-adaptive", (1.0,), inference="svi_spike_slab"),
            WithoutGates("dense", "dense"),
        ),
        ON_SPIKE_SLAB,
    ),
    Table(
        "robustness", "LeNet-300-100 on MNIST, started at other widths", "lenet_300_100", "mnist",
        tuple(
            Gates(f"widths {first}-{second}", (1.0,), model={"widths": (first, second)})
            for first, second in ((150, 50), (300, 100), (600, 200), (1200, 400))
        ),
    ),
)  # fmt: skip
TABLES = {table.name: table for table in _ALL}
"""Name → table."""


def named(name: str) -> Table:
    """The table of a name.

    Args:
        name: as it is asked for.

    Raises:
        SettingsError: there is none; those there are are named.

    Example:
        >>> named("mnist-mlp").program
        'lenet_300_100'
    """
    if name not in TABLES:
        raise SettingsError(f"There is no table {name!r}: there are {', '.join(TABLES)}.")
    return TABLES[name]
