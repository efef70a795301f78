"""Rules that turn a posterior, or a trained network, into masks: one protocol for all of them."""

from bayesprune.selection.choose import Candidate, path, prune, select
from bayesprune.selection.dpp.sample import KDPP, sample_kdpp
from bayesprune.selection.inclusion import InclusionProb
from bayesprune.selection.magnitude import Magnitude
from bayesprune.selection.masks import Masks, Scores
from bayesprune.selection.random_nodes import RandomNodes
from bayesprune.selection.rule import Decided, Rule, Scored
from bayesprune.selection.subject import Subject

__all__ = [
    "KDPP",
    "Candidate",
    "Decided",
    "InclusionProb",
    "Magnitude",
    "Masks",
    "RandomNodes",
    "Rule",
    "Scored",
    "Scores",
    "Subject",
    "path",
    "prune",
    "sample_kdpp",
    "select",
]
