"""Priors: a prior is a Pyro program of one argument, ``prior(group)`` → the distribution of its gates."""

from bayesprune.priors.budget import Budget
from bayesprune.priors.collapsed import Collapsed
from bayesprune.priors.continuous import ContinuousGuide, ContinuousPrior
from bayesprune.priors.cost_gates import CostGates
from bayesprune.priors.cost_price import Price
from bayesprune.priors.flattening import FlatteningDistribution
from bayesprune.priors.gates import Gates
from bayesprune.priors.gaussian_gates import GaussianGates, GaussianGuide, NormalJeffreysGates
from bayesprune.priors.hard_concrete import HardConcrete, HardConcreteGates, HardConcreteGuide
from bayesprune.priors.horseshoe_gates import HorseshoeGates, HorseshoeGuide
from bayesprune.priors.integrated import IntegratedFlattening
from bayesprune.priors.known_rate import Fixed, LayerAdaptive
from bayesprune.priors.latency import Latency
from bayesprune.priors.linked_gates import LinkedGates
from bayesprune.priors.log_normal_gates import LogNormalGates, LogNormalGuide, TruncatedLogNormal
from bayesprune.priors.price import Flattening
from bayesprune.priors.priors import BernoulliGates, PerGroup, SpikeAndSlab
from bayesprune.priors.protocol import ClosedFormPrior, GatePrior, HyperPrior, NetworkPrior, closed_form
from bayesprune.priors.shared_rate import Beta
from bayesprune.priors.spike_slab_normal import SpikeAndSlabNormal
from bayesprune.priors.weights import NormalWeights

__all__ = [
    "BernoulliGates",
    "Beta",
    "Budget",
    "ClosedFormPrior",
    "Collapsed",
    "ContinuousGuide",
    "ContinuousPrior",
    "CostGates",
    "Fixed",
    "Flattening",
    "FlatteningDistribution",
    "GatePrior",
    "Gates",
    "GaussianGates",
    "GaussianGuide",
    "HardConcrete",
    "HardConcreteGates",
    "HardConcreteGuide",
    "HorseshoeGates",
    "HorseshoeGuide",
    "HyperPrior",
    "IntegratedFlattening",
    "Latency",
    "LayerAdaptive",
    "LinkedGates",
    "LogNormalGates",
    "LogNormalGuide",
    "NetworkPrior",
    "NormalJeffreysGates",
    "NormalWeights",
    "PerGroup",
    "Price",
    "SpikeAndSlab",
    "SpikeAndSlabNormal",
    "TruncatedLogNormal",
    "closed_form",
]
