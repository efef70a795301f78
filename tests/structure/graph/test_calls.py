"""Inputs as they are: tuples, dicts, nested, with masks and constants; and outputs likewise."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_flatten_with_path, tree_map

import bayesprune as bp
from bayesprune.errors import DataError, UnsupportedNetworkError
from bayesprune.rows.call import call_of
from bayesprune.structure.graph import as_plain_graph
from tests.structure.graph.calls import Classifier, LikeModelOutput, Output, Siamese, example


def logits_of(outputs):
    if isinstance(outputs, tuple):
        return outputs[0]
    return outputs["logits"] if isinstance(outputs, dict) else outputs.logits


def half(analysis):
    """Every other unit of each group, and all sections."""
    return {g.name: torch.arange(g.size) % 2 == 0 for g in analysis.groups if not g.optional}


@pytest.mark.parametrize("kind", [Output, LikeModelOutput, tuple, dict])
def test_cut_saved_and_loaded_networks_do_what_the_gated_one_does(kind, tmp_path):
    torch.manual_seed(0)
    network, batch = Classifier(kind).double().eval(), example()
    analysis = bp.analyse(network, batch)
    kept = half(analysis)
    gates = {name: mask.double() for name, mask in kept.items()}
    masked = analysis.gated(**example(3, seed=1), gates=gates)
    small = analysis.cut(kept)
    assert type(small) is Classifier and len(small.wide.weight) == 6
    found = small(**example(3, seed=1))
    assert type(found) is type(masked) is kind
    torch.testing.assert_close(logits_of(found), logits_of(masked), rtol=0, atol=1e-12)
    bp.save(small, tmp_path, batch)
    loaded, own = bp.load(tmp_path), bp.load(tmp_path, into=Classifier(kind).double())
    for other in (loaded, own, as_plain_graph(small, batch), pickle.loads(pickle.dumps(loaded))):
        assert torch.equal(logits_of(other(**example(3, seed=1))), logits_of(found))


def test_results_have_their_names_where_the_class_is_not_there(tmp_path):
    network, batch = Classifier(LikeModelOutput).eval(), example()
    bp.save(network, tmp_path, batch)
    found = bp.load(tmp_path)(**batch)
    assert list(found) == ["logits"] and found.loss is None
    assert found.logits is found["logits"] is found[0]


def test_pytorch_looks_into_results_with_names(tmp_path):
    network, batch = Classifier(LikeModelOutput).eval(), example()
    bp.save(network, tmp_path, batch)
    loaded = bp.load(tmp_path)
    found = loaded(**batch)
    doubled = tree_map(lambda leaf: 2 * leaf, found)
    assert type(doubled) is type(found) and torch.equal(doubled.logits, 2 * found.logits)
    assert [str(path[0]) for path, _ in tree_flatten_with_path(found)[0]] == ["['logits']"]
    exported = torch.export.export(loaded, (), batch).module()(**batch)
    torch.testing.assert_close(exported.logits, found.logits)


def test_a_graph_takes_by_position_what_the_example_has_by_name_and_the_other_way_round():
    network, batch = Classifier().eval(), example()
    expected = network(**batch).logits
    graph = as_plain_graph(network, batch)
    assert torch.equal(graph(batch["ids"], batch["mask"], batch["more"]).logits, expected)
    pair = torch.rand(3, 6), torch.rand(3, 6)
    twins = Siamese().eval()
    assert torch.equal(as_plain_graph(twins, pair)(b=pair[1], a=pair[0]), twins(*pair))


def test_several_tensors_by_position_are_pruned_exactly():
    torch.manual_seed(0)
    network, pair = Siamese().double().eval(), (torch.rand(3, 6).double(), torch.rand(3, 6).double())
    analysis = bp.analyse(network, pair)
    kept = half(analysis)
    masked = analysis.gated(*pair, gates={name: mask.double() for name, mask in kept.items()})
    torch.testing.assert_close(analysis.cut(kept)(*pair), masked, rtol=0, atol=1e-12)


def test_onnx_has_the_names_of_inputs_and_outputs(tmp_path):
    onnx = pytest.importorskip("onnx")
    network, batch = Classifier().eval(), example()
    bp.export(network, tmp_path / "net.onnx", batch)
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert [entry.name for entry in graph.input] == ["ids", "mask", "more_by_0"]
    assert [entry.name for entry in graph.output] == ["logits"]


def test_costs_are_those_of_one_row_whatever_the_form():
    network, batch = Classifier(), example()
    assert bp.count(network, batch) == bp.count(network, example(1))


WRONG = [
    ({"mask": ...}, "the inputs lack 'mask'"),
    ({"strange": torch.zeros(4)}, "the inputs have 'strange'"),
    ({"scale": False}, "'scale' is False, and was True"),
    ({"ids": 3}, "'ids' is a int, and in the network's example a tensor"),
    (
        {"more": {"by": (torch.zeros(4),)}},
        "the inputs of 'more.by' are 1 parts, and in the network's example 2",
    ),
    (
        {"more": torch.zeros(4)},
        "the inputs of 'more' are a Tensor, and in the network's example a dict of by",
    ),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_call_of_another_form_is_refused_by_name(change, said):
    graph = as_plain_graph(Classifier(), example())
    batch = {name: value for name, value in {**example(), **change}.items() if value is not ...}
    with pytest.raises(DataError, match=f"^Classifier: {said}"):
        graph(**batch)


def test_what_forward_takes_by_itself_may_be_left_out():
    network, batch = Classifier().eval(), example()
    graph = as_plain_graph(network, batch)
    batch.pop("scale")
    assert torch.equal(graph(**batch).logits, network(**batch).logits)
    fixed = as_plain_graph(network, {**batch, "scale": False})
    with pytest.raises(DataError, match="lack 'scale'"):
        fixed(**batch)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({}, "example: dict. Give a batch"),
        ({"ids": torch.zeros(4, 5), "mask": torch.zeros(3, 5)}, "unequal numbers of rows: ids 4, mask 3"),
        ({"ids": {1, 2}}, "a set among the inputs"),
        ((torch.tensor(1.0),), "single number"),
    ],
    ids=str,
)
def test_an_example_that_is_none_is_refused(batch, said):
    with pytest.raises(DataError, match=said):
        call_of(Classifier(), batch)


def test_a_network_with_hooks_of_its_own_is_refused_where_they_would_see_something_else():
    network = Classifier()
    network.register_forward_hook(lambda module, inputs, outputs: outputs)
    with pytest.raises(UnsupportedNetworkError, match="itself has hooks"):
        bp.analyse(network, example())


def test_the_users_network_is_left_alone():
    network, batch = Classifier(), example()
    before = copy.deepcopy(network.state_dict())
    bp.analyse(network, batch)
    with pytest.raises(UnsupportedNetworkError):
        bp.analyse(network, {"ids": torch.zeros(2, 5)})  # no numbers of rows of a table
    assert "forward" not in vars(network) and network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Cached(nn.Module):
    """Returns an object beside its tensors, as a cache is."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        return {"y": self.second(self.first(x).relu()), "cache": iter(())}


def test_an_object_beside_the_tensors_is_none_in_a_graph():
    found = as_plain_graph(Cached(), torch.rand(2, 3))(torch.rand(2, 3))
    assert found["cache"] is None and found["y"].shape == (2, 2)
