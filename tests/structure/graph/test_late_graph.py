"""Graphs that write their code when they are first run."""

import copy
import pickle

import pytest
import torch
from torch import fx

from bayesprune.structure.graph.capture.bind import graph_forward
from bayesprune.structure.graph.capture.late_graph import LateGraph


def doubled():
    graph = fx.Graph()
    graph.output(graph.call_function(torch.mul, (graph.placeholder("x"), 2.0)))
    return LateGraph(torch.nn.Module(), graph)


def tripled_(late):
    next(node for node in late.graph.nodes if node.op == "call_function").args = (
        next(iter(late.graph.nodes)),
        3.0,
    )
    late.recompile()


@pytest.mark.parametrize("run", [lambda late, x: late(x), lambda late, x: graph_forward(late, late, x)])
def test_it_computes_what_the_graph_says_now(run):
    late, other, x = doubled(), doubled(), torch.ones(2)
    assert run(late, x).tolist() == [2.0, 2.0]
    tripled_(late)
    assert run(late, x).tolist() == [3.0, 3.0]
    assert run(other, x).tolist() == [2.0, 2.0], "each has code of its own"
    assert run(copy.deepcopy(late), x).tolist() == [3.0, 3.0]


def test_nothing_is_written_before(monkeypatch):
    written = []
    real = fx.GraphModule.recompile
    monkeypatch.setattr(fx.GraphModule, "recompile", lambda self: written.append(1) or real(self))
    late = doubled()
    tripled_(late)
    assert not written
    late(torch.ones(2))
    late(torch.ones(2))
    assert len(written) == 1
    tripled_(late)
    assert "3.0" in late.code


def test_what_is_pickled_has_its_code():
    assert b"2.0" in pickle.dumps(doubled())
