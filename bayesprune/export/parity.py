"""Whether an exported network computes in another runtime what it computes here."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.graph.plain import alike
from bayesprune.structure.plain import place_of


def check_parity(network: nn.Module, path: Path, inputs: tuple[Tensor, ...]) -> None:
    """Run an ONNX file on the inputs and on more rows of them, and compare.

    Done where onnxruntime is installed, and for networks of float32, as it lacks operations of other types.

    Args:
        network: what was exported, in eval mode, on the CPU.
        path: the file.
        inputs: (rows, ...) each.

    Raises:
        UnsupportedNetworkError: it does not run, or computes something else.
    """
    if importlib.util.find_spec("onnxruntime") is None or place_of(network)[1] != torch.float32:
        return
    for rows in (inputs, tuple(torch.cat([x, x.flip(0), x]) for x in inputs)):
        with torch.no_grad():
            outputs = tree_leaves(network(*(x.clone() for x in rows)))
        try:
            found = _run(path, rows)
        except Exception as problem:  # onnxruntime's own have no common class
            if type(problem).__name__ == "NotImplemented":
                return  # an operation that only other runtimes have
            reason = str(problem).partition("\n")[0].rstrip(".")
            raise _refusal(f"does not run in onnxruntime: {reason}.") from problem
        if not alike(found, [y for y in outputs if isinstance(y, Tensor)]):
            raise _refusal("computes something else in onnxruntime.")


def _run(path: Path, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, at import
        import onnxruntime
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options)
    names = [given.name for given in session.get_inputs()]
    values = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(y) for y in session.run(None, values)]


def _refusal(what: str) -> UnsupportedNetworkError:
    return UnsupportedNetworkError(
        f"The network cannot be exported to ONNX: what PyTorch's exporter writes {what} Save it in a folder "
        "instead, which bayesprune.load() reads."
    )
