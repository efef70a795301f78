"""Whether an exported network computes in another runtime what it computes here."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import ExportWarning, UnsupportedNetworkError
from bayesprune.rows.call import Call
from bayesprune.rows.nested import taken_apart
from bayesprune.structure.graph.capture.bind import alike
from bayesprune.structure.plain import place_of


def same_at(network: nn.Module, content: bytes, inputs: Call) -> bool:
    """Whether an ONNX file's content gives at some inputs what the network gives; unknown is as good as yes.

    Args:
        network: what was exported, in eval mode, on the CPU.
        content: of the file, which ``check_parity`` has looked at.
        inputs: (rows, ...), of other sizes than it was exported with.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return True
    try:
        return alike(_run(content, inputs.tensors), _outputs(network, inputs))
    except Exception as problem:  # onnxruntime's own have no common class
        return type(problem).__name__ == "NotImplemented"


def _outputs(network: nn.Module, inputs: Call) -> list[Tensor]:
    with torch.no_grad():
        return taken_apart(inputs.clone().on(network))[0]


def check_parity(network: nn.Module, content: bytes, inputs: Call) -> None:
    """Run an ONNX file's content on the inputs and on more rows of them, and compare.

    Done where onnxruntime is installed. It lacks operations of float64 and bfloat16; of a file that it cannot
    run it is said that it was not compared.

    Args:
        network: what was exported, in eval mode, on the CPU.
        content: of the file.
        inputs: (rows, ...).

    Raises:
        UnsupportedNetworkError: it is no valid ONNX, does not run, or computes something else.

    Warns:
        ExportWarning: an operation that onnxruntime does not have in this type.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return
    for rows in (inputs, inputs.mapped(lambda x: torch.cat([x, x.flip(0), x]))):
        outputs = _outputs(network, rows)
        try:
            found = _run(content, rows.tensors)
        except Exception as problem:  # onnxruntime's own have no common class
            reason = str(problem).partition("\n")[0].rstrip(".")
            if type(problem).__name__ == "NotImplemented":  # an operation that only other runtimes have
                dtype = place_of(network)[1]
                remedy = "" if dtype == torch.float32 else " Export network.float(), and it is compared."
                warnings.warn(
                    f"What was written could not be compared with the network, whose type is {dtype}: "
                    f"onnxruntime does not run it ({reason}).{remedy}",
                    ExportWarning,
                    stacklevel=5,
                )
                return
            raise _refusal(f"does not run in onnxruntime: {reason}.") from problem
        if not alike(found, outputs):
            raise _refusal("computes something else in onnxruntime.")


def _run(content: bytes, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, at import
        import onnxruntime
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options)
    names = [given.name for given in session.get_inputs()]
    values = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(y) for y in session.run(None, values)]


def _refusal(what: str) -> UnsupportedNetworkError:
    return UnsupportedNetworkError(
        f"The network cannot be exported to ONNX: what PyTorch's exporter writes {what} Save it in a folder "
        "instead, which bayesprune.load() reads."
    )
