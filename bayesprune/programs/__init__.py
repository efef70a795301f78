"""Programs: the files of models/ and inference/, and users' own, found by name or path, and checked.

A model file says what is learnt; an inference file says how. Both are read top to bottom, and loaded by path.
"""

from bayesprune.programs.execute import run_own
from bayesprune.programs.find import Kind, Program, available, find, is_own
from bayesprune.programs.load import InferenceProgram, ModelProgram, load_inference, load_model

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
