"""Programs: the files of models/ and inference/, and users' own, found by name or path, and checked.

A model file says what is learnt; an inference file says how. Both are read top to bottom, and loaded by path.
"""

from typing import TYPE_CHECKING

from bayesprune.lazy import lazily
from bayesprune.programs.find import Kind, Program, available, find, is_own

if TYPE_CHECKING:
    from bayesprune.programs.execute import run_own
    from bayesprune.programs.load import InferenceProgram, ModelProgram, load_inference, load_model
else:  # they need PyTorch, and to list the programs does not
    _LOAD = ("InferenceProgram", "ModelProgram", "load_inference", "load_model")
    _PLACES = dict.fromkeys(_LOAD, "bayesprune.programs.load") | {"run_own": "bayesprune.programs.execute"}
    __getattr__, __dir__ = lazily(__name__, _PLACES)

__all__ = [
    "InferenceProgram",
    "Kind",
    "ModelProgram",
    "Program",
    "available",
    "find",
    "is_own",
    "load_inference",
    "load_model",
    "run_own",
]
