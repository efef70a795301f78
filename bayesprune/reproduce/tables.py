"""The tables that can be asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from bayesprune.errors import SettingsError
from bayesprune.gated import GatedModel
from bayesprune.priors import (
    Flattening,
    GaussianGates,
    HardConcreteGates,
    LogNormalGates,
    NormalJeffreysGates,
    PerGroup,
)
from bayesprune.priors.program import Prior
from bayesprune.reproduce.methods import Gates, WithoutGates
from bayesprune.reproduce.published import ON_LENET5, ON_MLP, ON_SPIKE_SLAB
from bayesprune.reproduce.setup import Setup
from bayesprune.reproduce.table import Curves, Part, Table
from bayesprune.reproduce.torch_pruned import TorchPruned

OURS = "bayesprune, Bernoulli gates"
"""A line of each table, which the baselines are as small as."""


BASELINES = (
    WithoutGates("dense", "dense"),
    WithoutGates("small dense, all widths alike", "small_dense", OURS),
    WithoutGates("the kept shape, from scratch", "from_scratch", OURS),
    WithoutGates("magnitude, ten cuts, inputs too", "magnitude", OURS),
    TorchPruned("Torch-Pruning, group magnitude, ten cuts", OURS),
)

FACTORS = (5.0, 20.0, 80.0)
"""Weights of a divergence: nats of 60,000 rows for each nat of one's, and of fewer rows less, as prices."""


def _hard_concrete(setup: Setup, whole: GatedModel, scale: float) -> HardConcreteGates:
    prices = setup.program.prices(len(setup.train))
    return HardConcreteGates(Flattening({group: scale * nats for group, nats in prices.items()}))


def _factors(name: str, make: Callable[[float], Prior], **settings: Any) -> Gates:
    def prior(setup: Setup, whole: GatedModel, weight: float) -> Prior:
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


def _averaged(name: str, make: Callable[[float], Prior]) -> Gates:
    """Divergences as BMRS's public code weighs them: averaged over units, then over layers.

    A unit of a group of n, of L groups, then pays rows / (n L) nats for each nat of its own.
    """

    def prior(setup: Setup, whole: GatedModel, factor: float) -> PerGroup:
        groups = whole.groups
        shares = {g.name: factor * len(setup.train) / (len(groups) * g.size) for g in groups}
        return PerGroup({group: make(weight) for group, weight in shares.items()})

    return Gates(name, AVERAGED, "weight ×", prior=prior, gating={"inputs": False})


AVERAGED = (1.0, 4.0, 16.0)
"""Factors on the weight that divergences have in BMRS's public code."""
NEAR_ITS_LINE = 0.1
"""Nats of evidence for a unit that BMRS's first form still takes for none, without which short trainings end
before it has removed anything: of a unit that has lost all signal ΔF comes to its line, zero, from below."""

UNITS = {"layers": "none"}

NORMAL_FORM = partial(LogNormalGates, rule="bmrs_normal", line=NEAR_ITS_LINE)
_ALL: tuple[Table | Curves, ...] = (
    Table(
        "mnist-mlp", "LeNet-300-100 on MNIST", "lenet_300_100", "mnist",
        (Gates(OURS), *BASELINES, *CONTINUOUS), ON_MLP, most_parameters=5.6,
    ),
    Table(
        "mnist-lenet5", "LeNet-5-Caffe on MNIST", "lenet5", "mnist",
        (Gates(OURS, (0.7, 1.0, 1.4)), *BASELINES, *CONTINUOUS), ON_LENET5, most_parameters=1.6,
        quick_epochs=4,
    ),
    Table(
        "spike-slab", "LeNet-300-100 on MNIST, spike-and-slab", "lenet_300_100_spike_slab", "mnist",
        (
            Gates("spike-and-slab, a scale for each weight", inference="svi_spike_slab"),
            Gates(
                "spike-and-slab, published settings", (1.0,),
                model={"published": True}, inference="svi_spike_slab_published",
            ),
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
    Table(
        "layers", "ResNet-20 on CIFAR-10, gates on units and on whole sections", "resnet20_cifar", "cifar-10",
        (
            Gates(OURS, (0.5, 1.0, 2.0)),
            Gates("the same, gates on units alone", (0.5, 1.0, 2.0), model=UNITS),
            *BASELINES,
        ),
        quick_epochs=6, quick_size=8,
        note="Guenter & Sideris (arXiv 2406.04549) evaluate gates of layers on LeNet, VGG-16 and ResNets; of "
        "their figures none could be read as text, and no code of theirs is public.",
    ),
    Curves(
        "bmrs", "the protocol of BMRS (arXiv 2406.01345), methods at equal parameters",
        tuple(
            Part(network, f"bmrs_{network}", data)
            for data in ("mnist", "fashion-mnist", "cifar-10")
            for network in ("mlp", "lenet5")
        ),
        (
            Gates(OURS, (1.0, 4.0, 16.0)),
            _averaged("log-normal gates, SNR", LogNormalGates),
            _averaged("log-normal gates, BMRS_N", NORMAL_FORM),
            _averaged("log-normal gates, BMRS_U", partial(LogNormalGates, rule="bmrs_uniform")),
            _averaged("Gaussian gates", GaussianGates),
            WithoutGates("dense", "dense", settings=(1.0,)),
        ),
        note="The paper's own figures are not published as text, and so stand beside none of these.",
    ),
)  # fmt: skip
TABLES = {table.name: table for table in _ALL}
"""Name → table."""


def named(name: str) -> Table | Curves:
    """The table of a name.

    Args:
        name: as it is asked for.

    Raises:
        SettingsError: there is none; those there are are named.

    Example:
        >>> named("mnist-mlp").title
        'LeNet-300-100 on MNIST'
    """
    if name not in TABLES:
        raise SettingsError(f"There is no table {name!r}: there are {', '.join(TABLES)}.")
    return TABLES[name]
