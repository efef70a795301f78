"""Graphs as plain data: what comes back is what went in, and nothing else comes in."""

import collections
import json

import pytest
import torch
from torch import fx, nn

from bayesprune.rows.nested import Leaf, put_together
from bayesprune.structure.graph import as_plain_graph
from bayesprune.structure.plain.nodes import as_data, from_data
from bayesprune.structure.plain.program import program_data, program_from_data
from bayesprune.structure.plain.trees import tree_data, tree_from_data
from bayesprune.structure.plain.values import decoded, encoded

aten = torch.ops.aten
Pair = collections.namedtuple("Pair", "first second")


@pytest.mark.parametrize(
    "value",
    [None, True, 3, -2.5, 1e-300, float("inf"), float("-inf"), "same", torch.float64, torch.strided,
     torch.channels_last, torch.device("cpu"), [1, [2.0, None]]],
    ids=str,
)  # fmt: skip
def test_arguments_come_back(value):
    assert decoded(json.loads(json.dumps(encoded(value))), {}) == value


def test_a_device_is_told_as_the_cpu_where_networks_are_loaded():
    assert encoded(torch.device("cuda:1")) == {"device": "cpu"}


@pytest.mark.parametrize("value", [1j, torch.zeros(1), print, slice(1), {"a": 1}])
def test_what_is_no_plain_argument_is_refused(value):
    with pytest.raises(ValueError, match="cannot write down"):
        encoded(value)


@pytest.mark.parametrize(
    "data",
    [
        {"node": "later"},
        {"dtype": "load"},
        {"dtype": ["float32"]},
        {"device": "cuda"},
        {"float": "1"},
        {"code": "1"},
        {"dtype": "float32", "node": "x"},
        {},
    ],
    ids=str,
)
def test_data_that_are_no_argument_are_refused(data):
    with pytest.raises(ValueError):
        decoded(data, {})


@pytest.mark.parametrize(
    "tree",
    [0, (0, 1), [0, (1,)], {"b": 0, "a": [1, 2]}, collections.OrderedDict(z=0, a=1), Pair(0, (1, 2)), ()],
    ids=str,
)
def test_structures_of_outputs_come_back(tree):
    count = torch.utils._pytree.tree_structure(tree).num_leaves
    places = torch.utils._pytree.tree_map(Leaf, tree)
    again = tree_from_data(json.loads(json.dumps(tree_data(places))), count)
    numbers = put_together(again, range(count))
    assert numbers == tree and list(numbers) == list(tree) if isinstance(tree, dict) else numbers == tree
    if isinstance(tree, Pair):
        assert numbers._fields == Pair._fields


@pytest.mark.parametrize(
    "data",
    [{"set": [0]}, {"tuple": [0, 0]}, {"tuple": [1, 0]}, {"tuple": [0]}, {"dict": [[1, 0], [2, 1]]}, "os",
     {"namedtuple": ["X", ["import os", 0], ["b", 1]]}, {"namedtuple": ["class", ["a", 0], ["b", 1]]},
     {"namedtuple": ["X", ["a", 0], ["a", 1]]}, {"tuple": 2}, {"tuple": [True, 1]}],
    ids=str,
)  # fmt: skip
def test_structures_that_are_none_are_refused(data):
    with pytest.raises(ValueError):
        tree_from_data(data, 2)


class Several(nn.Module):
    """Sizes from the rows, constants, dtypes, several outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)

    def forward(self, x, mask):
        y = self.norm(self.first(x)).view(x.shape[0], 2, 3)
        y = y + torch.arange(3, dtype=x.dtype, device=x.device)
        return {"a": torch.cat([y, mask[:, None, :].to(y.dtype)], 1), "b": (y.split([1, 1], 1)[1],)}


@pytest.fixture
def network():
    return as_plain_graph(Several(), (torch.randn(2, 4), torch.ones(2, 3, dtype=torch.bool))).eval()


def test_programs_come_back(network):
    program = network._bayesprune_program
    data = json.loads(json.dumps(program_data(program)))
    names = {name for name, _ in (*network.named_parameters(), *network.named_buffers())}
    again = program_from_data(data, program.kind, names, program.place)
    assert program_data(again) == data
    inputs = torch.randn(5, 4), torch.rand(5, 3) > 0.5
    for training in (False, True):
        leaves = again.run[training](network, *inputs)
        expected = program.run[training](network, *inputs)
        assert all(torch.equal(a, b) for a, b in zip(leaves, expected, strict=True))


X = {"name": "x", "input": "x"}
RELU = {"name": "relu", "op": "aten::relu.default", "args": [{"node": "x"}]}
END = {"returns": [{"node": "relu"}]}


def test_a_small_graph_runs():
    graph = from_data([X, RELU, END], ())
    assert torch.equal(fx.GraphModule({}, graph)(torch.tensor([-1.0, 2.0]))[0], torch.tensor([0.0, 2.0]))
    assert as_data(graph) == [X, RELU, END]


PLANTED = "__import__('os').system('touch /tmp/planted')"


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "graph",
        [X, RELU],
        [X, RELU, {"returns": {"node": "relu"}}],
        [X, RELU, {"returns": [{"node": "gone"}]}],
        [X, X, RELU, END],
        [{"name": "x", "input": "self"}, RELU, END],
        [{"name": "x", "input": f"x={PLANTED}"}, RELU, END],
        [{"name": f"x; {PLANTED}", "input": "x"}, RELU, END],
        [{"name": "x", "tensor": f"a')+{PLANTED}#"}, RELU, END],
        [{"name": "x", "tensor": f'a")+{PLANTED}#'}, RELU, END],
        [{"name": "x", "tensor": "absent"}, RELU, END],
        [X, {**RELU, "op": "os.system", "args": ["touch planted"]}, END],
        [X, {**RELU, "op": "aten::from_file.default", "args": ["planted"]}, END],
        [X, {**RELU, "args": [{"node": "relu"}]}, END],
        [X, {**RELU, "args": [{"node": "x"}, 1]}, END],
        [X, {**RELU, "args": {"node": "x"}}, END],
        [X, {**RELU, "kwargs": {f"self={PLANTED}, b": 1}}, END],
        [X, {**RELU, "args": [], "kwargs": {"out": {"node": "x"}}}, END],
        [X, {**RELU, "kwargs": {"self": 1}}, END],
        [X, {**RELU, "op": "operator.mul", "kwargs": {"a": 1}}, END],
        [X, {**RELU, "op": "operator.mul", "args": [1, 2, 3]}, END],
        [X, {**RELU, "code": PLANTED}, END],
        [X, {"name": "relu", "module": "os"}, END],
        [X, "relu", END],
    ],
)
def test_graphs_that_are_none_are_refused(data, tmp_path):
    """Tensor names are given as they stand in the data: even those must not become code."""
    known = [entry["tensor"] for entry in data or () if isinstance(entry, dict) and "tensor" in entry]
    with pytest.raises(ValueError):
        from_data(data, [name for name in known if name != "absent"])


def test_all_operations_that_are_not_listed_are_named():
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output((graph.call_function(torch.linalg.svdvals, (x,)), graph.call_function(print, (x,))))
    with pytest.raises(ValueError, match=r"svdvals.*print"):
        as_data(graph)
