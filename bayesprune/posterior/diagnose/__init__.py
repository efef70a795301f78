"""Five answers about a mask: optimised, decided, reproducible, faithful, calibrated; never one boolean."""

from bayesprune.lazy import callable_room
from bayesprune.posterior.diagnose.answer import Answer, Evidence, Measure
from bayesprune.posterior.diagnose.calibrated import exact_inclusion, rank_uniformity, sbc_rank
from bayesprune.posterior.diagnose.table import Diagnosis, diagnose

__all__ = [
    "Answer",
    "Diagnosis",
    "Evidence",
    "Measure",
    "diagnose",
    "exact_inclusion",
    "rank_uniformity",
    "sbc_rank",
]

callable_room(__name__, "diagnose")
