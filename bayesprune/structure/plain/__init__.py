"""Networks that run as their graphs: plain PyTorch to use, plain data to keep."""

from bayesprune.structure.plain.parts import Part, bare
from bayesprune.structure.plain.plain_graph import PlainGraph
from bayesprune.structure.plain.program import program_data, program_from_data, tensor_names

__all__ = ["Part", "PlainGraph", "bare", "program_data", "program_from_data", "tensor_names"]
