"""A network for use elsewhere: as ONNX, or as a folder."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import ExportWarning, SettingsError, UnsupportedNetworkError
from bayesprune.export.axes import ROWS, elsewhere, free_axes, named
from bayesprune.export.folder import save
from bayesprune.export.layers import is_sequence
from bayesprune.export.parity import check_parity, same_at
from bayesprune.files import path_of, write_atomically
from bayesprune.rows.call import Call, call_of
from bayesprune.rows.example import example_call
from bayesprune.rows.nested import leaf_names, taken_apart
from bayesprune.structure.altered import bake_, check_no_global_hooks, drop_gradient_hooks_
from bayesprune.structure.copying import copy_of
from bayesprune.structure.graph import as_plain_graph
from bayesprune.structure.graph.capture.flat import flat
from bayesprune.structure.graph.capture.sizes import Axis
from bayesprune.structure.running import check_plain, evaluating, run_on

NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""The packages of the ``export`` extra: two that write ONNX, and one in which it is run and compared."""
LARGEST = 7 * 2**28
"""Bytes: a file of ONNX is one protocol buffer, of less than 2 GiB, and has the graph in it too."""


def export(network: nn.Module, path: str | Path, example: Any = None) -> None:
    """Write a network for use elsewhere: a path ``*.onnx`` gives ONNX, any other a folder as `save` does.

    The ONNX takes any number of rows, and any of the sizes (lengths, heights, widths) that the network takes:
    they have names in the file, as ``x_2``; others are fixed, and refused by name. Its inputs are called
    ``x``, or ``x0``, ``x1``, … where there are several; its outputs ``y``, or ``y0``, ``y1``, …. Inputs and
    outputs with names keep them: ``input_ids``, ``logits``. Where onnxruntime is installed, it is run there
    and compared, at other sizes too, before it takes its name.

    Args:
        network: what `bayesprune.prune` returns, or any other that PyTorch can trace; left alone.
        path: file ``*.onnx`` or folder.
        example: (rows, ...), a batch that it accepts, in any form that ``bp.gate`` takes; may be left out
            where the first layer is linear.

    Raises:
        DataError: an example that is none.
        RunFolderError: ``path`` is no path.
        SettingsError: an example is needed, or the packages of the ``export`` extra are.
        UnsupportedNetworkError: an operation that cannot be exported, or what was written is not the network.

    Warns:
        ExportWarning: what was written could not be compared, as onnxruntime does not run it; or it fixes
            sizes that the network does not.
    """
    check_plain(network, "export")
    check_no_global_hooks("export")
    path = path_of(path, "export: the path")
    inputs = example_call(network, _example_for(network) if example is None else example)
    if path.suffix.lower() == ".onnx":
        with evaluating(network):
            run_on(network, inputs)
        _export_onnx(network, path, inputs)
    else:
        save(network, path, inputs)


def _example_for(network: nn.Module) -> Tensor:
    first = next((layer for layer in network.modules() if not list(layer.children())), None)
    width = getattr(first, "in_features", None)
    if not isinstance(width, int):
        raise SettingsError(
            f"Cannot tell the input's shape from a first layer {type(first).__name__}: pass a batch, "
            "example=x[:1]."
        )
    return torch.zeros(1, width)


def _export_onnx(network: nn.Module, path: Path, inputs: Call) -> None:
    absent = [name for name in NEEDED[:2] if importlib.util.find_spec(name) is None]  # the third compares
    if absent:
        raise SettingsError(
            f"ONNX needs {' and '.join(absent)}, not installed here. Install with: pip install "
            f"{' '.join(NEEDED)}. Or export to a folder ({path.with_suffix('')}), which needs nothing more."
        )
    held = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    if held >= LARGEST:
        raise UnsupportedNetworkError(
            f"The network's {held / 2**30:.2f} GiB do not fit into one ONNX file, which holds less than "
            f"{LARGEST / 2**30:.2f}. Save it in a folder ({path.with_suffix('')}), which bayesprune.load() "
            "reads."
        )
    try:
        inputs = inputs.detach().to("cpu")
        content = _onnx_of(network, inputs)
    except torch.onnx.errors.OnnxExporterError as problem:
        raise UnsupportedNetworkError(
            f"The network cannot be exported to ONNX: {_reason(problem)} Save it in a folder instead "
            f"({path.with_suffix('')}), which bayesprune.load() reads."
        ) from problem
    write_atomically(path, content)


def _onnx_of(network: nn.Module, inputs: Call) -> bytes:
    """ONNX of a copy in eval mode, of its graph where it is no sequence of layers; compared.

    Sizes that the network takes freely are free in the file where the exporter can write that, and what it
    writes gives the same at others; else all of them are the example's.
    """
    network = bake_(drop_gradient_hooks_(copy_of(network).cpu()))
    if not is_sequence(network):  # a class' own code may make a number of the rows, its graph does not
        network = as_plain_graph(network, inputs)
    network.eval()
    inputs = call_of(network, inputs).twice()[:2]  # one row would be taken for a constant
    axes = free_axes(network, inputs)
    if axes:
        try:
            content = _written(network, inputs, axes)
        except torch.onnx.errors.OnnxExporterError as problem:
            why = _reason(problem)
        else:
            check_parity(network, content, inputs)
            if all(same_at(network, content, call) for call in elsewhere(network, inputs, axes)):
                return content
            why = "It gives other outputs at other sizes."
        names = ", ".join(dict.fromkeys(named(axes, inputs).values()))
        warnings.warn(
            f"The network takes any size of {names}, and PyTorch's exporter cannot write that: what was "
            f"written takes the example's sizes alone, and onnxruntime refuses others. Its reason: {why}",
            ExportWarning,
            stacklevel=4,
        )
    content = _written(network, inputs, ())
    check_parity(network, content, inputs)
    return content


def _written(network: nn.Module, inputs: Call, axes: Sequence[Axis]) -> bytes:
    """ONNX with any number of rows, and any size along some axes."""
    with torch.no_grad():
        _, tree = taken_apart(inputs.clone().on(network))
    free = named(axes, inputs)
    shapes: Any = tuple(
        {0: torch.export.Dim(ROWS), **{dim: free[n, dim] for dim in range(1, x.ndim) if (n, dim) in free}}
        for n, x in enumerate(inputs.tensors)
    )
    with warnings.catch_warnings(), flat(network, inputs.form, tree), _loops_over_time():
        warnings.simplefilter("ignore")  # the exporter's own deprecations: nothing the user can act on
        own = "forward" in vars(network)
        program = torch.onnx.export(
            network, inputs.tensors, dynamo=True, external_data=False, verbose=False,
            input_names=_names("x", list(inputs.form.names), not inputs.form.plain),
            output_names=_names("y", leaf_names(tree), own and bool(leaf_names(tree)[0])),
            dynamic_shapes=shapes if own or is_sequence(network) else (shapes,),
            custom_translation_table={torch.sym_sqrt: _root} if axes else None,
        )  # fmt: skip
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextlib.contextmanager
def _loops_over_time() -> Iterator[None]:
    """Recurrences are written for any length, whatever was exported before.

    PyTorch's exporter (2.13, ``torch/export/_patches.py``) puts a loop in the place of what unrolls them, and
    does not empty the operator's cache of what stands there: from the second export of a process on the
    length is fixed. What stood there must not go on running the loop either, which has no gradient.
    """
    operators = (torch.ops.aten.lstm.input, torch.ops.aten.gru.input)
    for operator in operators:
        getattr(operator, "_dispatch_cache", {}).clear()
    try:
        yield
    finally:
        for operator in operators:
            getattr(operator, "_dispatch_cache", {}).clear()


def _root(size: Any) -> Any:
    """The root of a size, in the words of ONNX."""
    import onnxscript

    words: Any = onnxscript.opset18
    return words.Sqrt(words.Cast(size, to=onnxscript.FLOAT.dtype))


def _reason(problem: BaseException) -> str:
    """What was wrong in the first place, in a line; two where the first announces the second."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    first, _, rest = str(problem).partition("\n")
    more = f" {rest.partition(chr(10))[0].strip(' -')}" if first.endswith((":", ":.")) else ""
    return f"{first.rstrip('.')}{more}".rstrip(".") + "."


def _names(letter: str, names: list[str], own: bool) -> list[str]:
    """What inputs or outputs are called: by names of their own, or a letter with a number."""
    if own:
        return [name if name.isidentifier() else f"{letter}_{name}" for name in names]
    return [letter] if len(names) == 1 else [f"{letter}{number}" for number in range(len(names))]
