"""Inference: gradient estimators, gate and weight steps, the objective, the loop that shrinks as it goes."""

from bayesprune.svi import guides
from bayesprune.svi.callbacks import Callback, EarlyStopping
from bayesprune.svi.estimators import (
    ARM,
    Concrete,
    CurvedStraightThrough,
    Enumeration,
    Reinforce,
    SecondOrderStraightThrough,
    StraightThrough,
)
from bayesprune.svi.evaluate import Quality, evaluate
from bayesprune.svi.fit import fit
from bayesprune.svi.moves import Decision, Move
from bayesprune.svi.result import Epoch, FitResult, Samples, prune
from bayesprune.svi.settings import GateSteps, Moves, Recipe, Shrink
from bayesprune.svi.settle import record, settle_
from bayesprune.svi.step import Engine, Info, State
from bayesprune.svi.training import Training
from bayesprune.svi.training_state import TrainingState

__all__ = [
    "ARM",
    "Callback",
    "Concrete",
    "CurvedStraightThrough",
    "Decision",
    "EarlyStopping",
    "Engine",
    "Enumeration",
    "Epoch",
    "FitResult",
    "GateSteps",
    "Info",
    "Move",
    "Moves",
    "Quality",
    "Recipe",
    "Reinforce",
    "Samples",
    "SecondOrderStraightThrough",
    "Shrink",
    "State",
    "StraightThrough",
    "Training",
    "TrainingState",
    "evaluate",
    "fit",
    "guides",
    "prune",
    "record",
    "settle_",
]
