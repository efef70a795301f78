"""Rules that turn a posterior, or a trained network, into masks: one protocol for all of them."""

from bayesprune.selection.acceptance import BayesAcceptance
from bayesprune.selection.bayes_factor import BayesFactor
from bayesprune.selection.choose import Candidate, path, prune, select
from bayesprune.selection.continuous import LogNormalReduction, SignalToNoise
from bayesprune.selection.dpp import DPP, KDPP, DPPEdges, gaussian_kernel, sample_kdpp
from bayesprune.selection.edges import EdgeRule, MagnitudeEdges, RandomEdges
from bayesprune.selection.front import FrontFigures, read_front, write_front
from bayesprune.selection.fuse import Fuse
from bayesprune.selection.inclusion import InclusionProb
from bayesprune.selection.learnt_masks import LearntEdgeMasks, LearntMasks
from bayesprune.selection.magnitude import Magnitude
from bayesprune.selection.masks import Masks, Scores
from bayesprune.selection.outgoing import Outgoing
from bayesprune.selection.random_nodes import RandomNodes
from bayesprune.selection.reduction import ModelReduction
from bayesprune.selection.rule import Rule, Scored
from bayesprune.selection.subject import Subject
from bayesprune.selection.taylor import Taylor
from bayesprune.selection.vertex import FlatteningVertex

__all__ = [
    "DPP",
    "KDPP",
    "BayesAcceptance",
    "BayesFactor",
    "Candidate",
    "DPPEdges",
    "EdgeRule",
    "FlatteningVertex",
    "FrontFigures",
    "Fuse",
    "InclusionProb",
    "LearntEdgeMasks",
    "LearntMasks",
    "LogNormalReduction",
    "Magnitude",
    "MagnitudeEdges",
    "Masks",
    "ModelReduction",
    "Outgoing",
    "RandomEdges",
    "RandomNodes",
    "Rule",
    "Scored",
    "Scores",
    "SignalToNoise",
    "Subject",
    "Taylor",
    "gaussian_kernel",
    "path",
    "prune",
    "read_front",
    "sample_kdpp",
    "select",
    "write_front",
]
