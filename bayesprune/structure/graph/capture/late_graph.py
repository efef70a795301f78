"""A graph module that writes its code late."""

from __future__ import annotations

from typing import Any

from torch import fx


class LateGraph(fx.GraphModule):
    """A graph module that writes its code when it is first run: most of them are changed on, or never run.

    PyTorch's own of this kind (``torch.fx._lazy_graph_module``) is private, and is not built upon.
    """

    def recompile(self) -> Any:
        """Called wherever the graph was changed: the code that there is does no longer hold."""
        type(self).forward = LateGraph._written_first  # a graph module's class is its own

    def _write_code(self) -> None:
        """Write the code, unless it is written."""
        if type(self).forward is LateGraph._written_first:
            super().recompile()

    def _written_first(self, *inputs: Any, **more: Any) -> Any:
        self._write_code()
        return self(*inputs, **more)

    @property
    def code(self) -> str:
        """As Python."""
        self._write_code()
        return super().code

    def __reduce__(self) -> Any:
        return fx.GraphModule(self, self.graph).__reduce__()
