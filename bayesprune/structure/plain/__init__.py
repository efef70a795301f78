"""Networks that run as their graphs: plain PyTorch to use, plain data to keep."""

from bayesprune.structure.plain.parts import LAYERS, Part, bare
from bayesprune.structure.plain.plain_graph import PlainGraph, graphs_inside, tensor_names
from bayesprune.structure.plain.program import Program, place_of, program_data, program_from_data
from bayesprune.structure.plain.routed import routed_linear

__all__ = [
    "LAYERS",
    "Part",
    "PlainGraph",
    "Program",
    "bare",
    "graphs_inside",
    "place_of",
    "program_data",
    "program_from_data",
    "routed_linear",
    "tensor_names",
]
