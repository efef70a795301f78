"""Statistical mechanics of pruning: teacher and student committee machines, exactly solvable."""

from bayesprune.theory.activation import Activation
from bayesprune.theory.bounds import (
    distortion,
    edge_distortion_bound,
    error_range,
    node_distortion_bound,
    volume_distortion_bound,
)
from bayesprune.theory.clipped import clipped
from bayesprune.theory.committee import Committee, draw_committee
from bayesprune.theory.dpp_edges import dpp_edges
from bayesprune.theory.edges import equal_edges, magnitude_edges, masked, random_edges
from bayesprune.theory.expected import expected_error, expected_fused_error
from bayesprune.theory.flow import drift
from bayesprune.theory.fuse import fuse, fuse_nodes, fused_readout
from bayesprune.theory.generalisation import generalisation_error, grams, monte_carlo_error
from bayesprune.theory.inclusion import dpp_inclusion, random_inclusion
from bayesprune.theory.kernels import node_kernel
from bayesprune.theory.named import activation_named
from bayesprune.theory.nodes import dpp_nodes, important_nodes, random_nodes, subset_law
from bayesprune.theory.order import OrderParameters, order_parameters
from bayesprune.theory.plots import plot_learning
from bayesprune.theory.redundant import redundant
from bayesprune.theory.simulate import Students, simulate, step_
from bayesprune.theory.solve import solve
from bayesprune.theory.thinned import thinned
from bayesprune.theory.training import Training
from bayesprune.theory.trajectory import Trajectory

__all__ = [
    "Activation",
    "Committee",
    "OrderParameters",
    "Students",
    "Training",
    "Trajectory",
    "activation_named",
    "clipped",
    "distortion",
    "dpp_edges",
    "dpp_inclusion",
    "dpp_nodes",
    "draw_committee",
    "drift",
    "edge_distortion_bound",
    "equal_edges",
    "error_range",
    "expected_error",
    "expected_fused_error",
    "fuse",
    "fuse_nodes",
    "fused_readout",
    "generalisation_error",
    "grams",
    "important_nodes",
    "magnitude_edges",
    "masked",
    "monte_carlo_error",
    "node_distortion_bound",
    "node_kernel",
    "order_parameters",
    "plot_learning",
    "random_edges",
    "random_inclusion",
    "random_nodes",
    "redundant",
    "simulate",
    "solve",
    "step_",
    "subset_law",
    "thinned",
    "volume_distortion_bound",
]
