"""Export: a network as two files that reload without pickle, in its own class if you like, or as ONNX.

A folder holds `pruned.safetensors`, the tensors, and `architecture.json`: for a sequence of plain layers
their classes and arguments, for any other network the operations that it runs, all from fixed lists. Nothing
in either file is ever executed as code. The package is what `export` is called by:
``bp.export(network, "net.onnx", example=x)``.
"""

from bayesprune.export.architecture import ARCHITECTURE, example_of, read_architecture
from bayesprune.export.folder import load, save
from bayesprune.export.graphs import check_savable
from bayesprune.export.layers import CLASSES
from bayesprune.export.onnx import export
from bayesprune.export.tensors import TENSORS
from bayesprune.lazy import callable_room

__all__ = [
    "ARCHITECTURE",
    "CLASSES",
    "TENSORS",
    "check_savable",
    "example_of",
    "export",
    "load",
    "read_architecture",
    "save",
]

callable_room(__name__, "export")
