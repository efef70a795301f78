"""A graph as plain data, node by node, and back. Nothing that the data say is ever executed as code.

A node is a dict: ``{"name", "input": true}``, ``{"name", "tensor": <name of a parameter or buffer>}``,
``{"name", "op", "args", "kwargs"}``, and at the end ``{"returns": [...]}``. Graphs become Python functions in
the end, so that every name that data can bring into one is checked here.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection
from typing import Any

from torch import fx

from bayesprune.structure.plain.operators import name_of, operator_of
from bayesprune.structure.plain.values import decoded, encoded
from bayesprune.structure.plain.written import copy_written_

SAFE_NAME = re.compile(r"[\w\-/ +:,]+")
"""One part of a tensor's dotted name: nothing that could end a string in Python."""


def as_data(graph: fx.Graph) -> list[dict[str, Any]]:
    """A graph as plain data.

    Args:
        graph: of inputs, tensors and operations.

    Returns:
        One dict a node, in the order in which they run.

    Raises:
        ValueError: an operation that is not on the list, or an argument or name that cannot be written down.
    """
    calls = [node for node in graph.nodes if node.op.startswith("call_")]
    unlisted = dict.fromkeys(f"{node.target} ({node.name})" for node in calls if _name(node) is None)
    if unlisted:
        raise ValueError(f"what it runs cannot be written down: {', '.join(unlisted)}")
    return [_node_data(node) for node in graph.nodes]


def from_data(data: Any, tensors: Collection[str]) -> fx.Graph:
    """A graph from plain data.

    Args:
        data: as `as_data` gives it.
        tensors: names of the parameters and buffers that it may read.

    Returns:
        The graph.

    Raises:
        ValueError: the data are not what `as_data` gives; the node is named.
    """
    if not isinstance(data, list) or not data or not isinstance(data[-1], dict) or "returns" not in data[-1]:
        raise ValueError("the graph does not end in what it returns")
    graph, nodes = fx.Graph(), dict[str, fx.Node]()
    for number, entry in enumerate(data[:-1]):
        try:
            name, node = _node(graph, entry, nodes, tensors)
        except ValueError as problem:
            named = entry.get("name") if isinstance(entry, dict) else None
            raise ValueError(f"node {number} ({named!r}): {problem}") from None
        nodes[name] = node
    returns = data[-1]["returns"]
    if not isinstance(returns, list):
        raise ValueError(f"the graph returns {returns!r}, no list")
    graph.output(tuple(decoded(returns, nodes)))
    copy_written_(graph)
    graph.lint()
    return graph


def _name(node: fx.Node) -> str | None:
    return name_of(node.target) if node.op == "call_function" else None


def _node_data(node: fx.Node) -> dict[str, Any]:
    if node.op == "output":
        return {"returns": encoded(node.args[0])}
    if node.op == "placeholder":
        return {"name": node.name, "input": str(node.target)}
    if node.op == "get_attr":
        return {"name": node.name, "tensor": _safe(str(node.target))}
    data: dict[str, Any] = {"name": node.name, "op": _name(node), "args": encoded(node.args)}
    if node.kwargs:
        data["kwargs"] = {
            key: encoded(value) for key, value in node.kwargs.items() if _takes(data["op"], key)
        }
    return data


def _takes(operation: str, argument: str) -> bool:
    """Whether an operation has an argument: zeros lack a memory format that ``empty`` may have been given."""
    schema = getattr(operator_of(operation), "_schema", None)
    return schema is None or any(known.name == argument for known in schema.arguments)


def _node(
    graph: fx.Graph, entry: Any, nodes: dict[str, fx.Node], tensors: Collection[str]
) -> tuple[str, fx.Node]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError(f"{entry!r} is no node with a name")
    name = entry["name"]
    if name in nodes or not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError("its name is taken, or no name")
    if set(entry) == {"name", "input"}:
        return name, _input(graph, entry["input"], nodes)
    if set(entry) == {"name", "tensor"}:
        return name, _tensor(graph, entry["tensor"], tensors, name)
    if set(entry) | {"kwargs"} == {"name", "op", "args", "kwargs"}:
        return name, _operation(graph, entry, nodes)
    raise ValueError(f"it has the entries {sorted(entry)}, like no node")


def _input(graph: fx.Graph, name: Any, nodes: dict[str, fx.Node]) -> fx.Node:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name == "self":
        raise ValueError(f"{name!r} is no name of an input")
    if any(node.op == "placeholder" and node.target == name for node in nodes.values()):
        raise ValueError(f"there are two inputs {name!r}")
    return graph.placeholder(name)


def _tensor(graph: fx.Graph, target: Any, tensors: Collection[str], name: str) -> fx.Node:
    if not isinstance(target, str) or target not in tensors:
        raise ValueError(f"there is no tensor {target!r}")
    return graph.create_node("get_attr", _safe(target), name=name)


def _operation(graph: fx.Graph, entry: dict[str, Any], nodes: dict[str, fx.Node]) -> fx.Node:
    operation = operator_of(entry["op"])
    args, kwargs = decoded(entry["args"], nodes), entry.get("kwargs", {})
    schema = getattr(operation, "_schema", None)
    known = [argument.name for argument in schema.arguments] if schema is not None else []
    if not isinstance(args, list) or len(args) > (len(known) if schema is not None else 2):
        raise ValueError(f"{entry['op']} takes {len(known) or 2} arguments at most")
    if not isinstance(kwargs, dict) or not set(kwargs) <= set(known[len(args) :]):
        raise ValueError(f"{entry['op']} does not take {kwargs!r} by name")
    more = {key: decoded(value, nodes) for key, value in kwargs.items()}
    return graph.create_node("call_function", operation, tuple(args), more, entry["name"])


def _safe(name: str) -> str:
    """A tensor's dotted name, if it can stand in Python code."""
    if not all(SAFE_NAME.fullmatch(part) for part in name.split(".")):
        raise ValueError(f"the tensor's name {name!r} has signs that cannot be written down; rename it")
    return name
