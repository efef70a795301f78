"""Networks with modules that run as graphs, put into instances of their own class."""

import copy
import functools
import json

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import CheckpointError, UnsupportedNetworkError
from bayesprune.structure.plain import graphs_inside
from tests.export.small import seal
from tests.structure.graph.own.networks import WIDTH, Transformer
from tests.structure.graph.own.test_excerpt import ATTENTIONS, STEM, Dividing, Free, Relative, narrowed
from tests.structure.graph.own.test_noted import build, cut


@functools.cache
def _narrow(attention):
    _, x, small, _ = narrowed(attention)
    return small.eval(), x


def narrow(attention):
    """A smaller network, the caller's own, and its example."""
    small, x = _narrow(attention)
    return copy.deepcopy(small), x


def loaded(small, own, folder, x):
    """What was saved, in an instance of its class: everywhere the same, bit by bit."""
    bp.save(small.eval(), folder, x)
    parameters = dict(own.named_parameters())
    assert bp.load(folder, into=own) is own and not own.training
    graphs = graphs_inside(small)
    assert graphs and graphs_inside(own) == graphs
    assert list(own.state_dict()) == list(small.state_dict())
    assert all(parameters[name] is parameter for name, parameter in own.named_parameters())
    more = torch.cat([x, x.flip(0)])
    for mode in (True, False):
        assert torch.equal(own.train(mode)(more), small.train(mode)(more))
    return own


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modules_that_ran_as_graphs_do_so_again(attention, dtype, tmp_path):
    small, x = narrow(attention)
    own = loaded(small.to(dtype), Transformer(attention), tmp_path, x.to(dtype))
    assert type(own) is Transformer and type(own.blocks[0].attn).__name__ == "PlainGraph"


def test_it_learns_as_the_one_that_was_saved(tmp_path):
    small, x = narrow(Dividing)
    own = loaded(small, Transformer(Dividing), tmp_path, x)
    for network in (own, small):
        network.train()(x).square().sum().backward()
    for (name, mine), (_, theirs) in zip(own.named_parameters(), small.named_parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad), name


def test_it_is_loaded_into_one_that_was_loaded_before(tmp_path):
    small, x = narrow(Relative)
    own = loaded(small, Transformer(Relative), tmp_path, x)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(1)
    loaded(small, own, tmp_path, x)


class Twice(nn.Module):
    """One attention in two places, called in each; its last weight is that of a layer outside, too."""

    def __init__(self):
        super().__init__()
        self.first, self.attn = nn.Linear(WIDTH, WIDTH, bias=False), Dividing()
        self.again, self.first.weight = self.attn, self.attn.proj.weight

    def forward(self, x):
        return self.again(self.attn(self.first(x)))


class Nested(nn.Module):
    """A stream of its own, so that what cannot follow stands inside of what can, with a section beside it."""

    def __init__(self):
        super().__init__()
        self.down, self.inner, self.branch = nn.Linear(WIDTH, WIDTH), Twice(), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("shift", torch.randn(WIDTH))

    def forward(self, x):
        x = self.inner(self.down(x)) + self.shift
        return x + self.branch(x).tanh()


def test_shared_and_nested_modules_are_put_in_their_places(tmp_path):
    network, x = build(Free, nn.Sequential(Nested(), Nested())), torch.randn(3, 4, 5).double()
    small, _ = cut(network, x, stem=STEM)
    assert type(small) is Free
    own = loaded(small, Free(nn.Sequential(Nested(), Nested())), tmp_path, x)
    inner = own.attn[0].inner
    assert list(graphs_inside(own))[:2] == ["attn.0.inner.attn", "attn.0.inner.again"]
    assert inner.first.weight is inner.attn.proj.weight is inner.again.proj.weight
    longer = torch.randn(2, 9, 5).double()
    assert torch.equal(own(longer), small(longer))


class Section(Dividing):
    """Attention with a part that can go as a whole."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        x = super().forward(x)
        return x + self.branch(x).tanh()


def test_a_section_that_was_lost_inside_of_a_graph_is_gone_from_the_instance(tmp_path):
    network, x = build(Free, Section()), torch.randn(3, 4, 5).double()
    analysis = bp.analyse(network, x)
    layers = next(g for g in analysis.groups if g.optional)
    small = analysis.cut({"stem": STEM, layers.name: torch.zeros(layers.size, dtype=torch.bool)})
    own = loaded(small, Free(Section()), tmp_path, x)
    assert not any("branch" in name for name in own.state_dict())


def test_what_a_file_does_not_hold_is_refused(tmp_path):
    """Folders that were written by an older version have no graphs of single modules."""
    small, x = narrow(Dividing)
    bp.save(small, tmp_path, x)
    path = tmp_path / "architecture.json"
    description = json.loads(path.read_text())
    assert [entry["name"] for entry in description.pop("inside")] == list(graphs_inside(small))
    path.write_text(json.dumps(description))
    seal(tmp_path)
    own = Transformer(Dividing)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    with pytest.raises(UnsupportedNetworkError, match="Transformer cannot hold the sizes"):
        bp.load(tmp_path, into=own)
    assert all(torch.equal(before[name], value) for name, value in own.state_dict().items())
    assert not graphs_inside(own) and torch.equal(bp.load(tmp_path)(x), small(x))


class Numbered(Dividing):
    """Returns what no file can name."""

    def forward(self, x):
        return {0: super().forward(x)}


class First(nn.Module):
    """Takes it."""

    def __init__(self):
        super().__init__()
        self.inner = Numbered()

    def forward(self, x):
        assert x.shape[1] == 4
        return self.inner(x)[0]


def test_results_that_cannot_be_written_down_are_left_out(tmp_path):
    network, x = build(Free, First()), torch.randn(3, 4, 5).double()
    small, _ = cut(network, x, stem=STEM)
    assert list(graphs_inside(small)) == ["attn.inner"]
    bp.save(small.eval(), tmp_path, x)
    assert torch.equal(bp.load(tmp_path)(x), small(x))
    with pytest.raises(UnsupportedNetworkError, match="Free cannot hold the sizes"):
        bp.load(tmp_path, into=Free(First()))


SPOILT = {
    "": lambda entries: entries[0].update(name=""),
    "nowhere": lambda entries: entries[0].update(name="nowhere"),
    "7": lambda entries: entries[0].update(name=7),
    "os.system": lambda entries: entries[0]["training"]["nodes"][-2].update(op="os.system"),
    "head.weight": lambda entries: entries[0]["training"]["nodes"][1].update(tensor="head.weight"),
    "call": lambda entries: entries[0].update(call={"positional": []}),
    "training": lambda entries: entries[0].pop("training"),
    "why": lambda entries: entries[0].pop("why"),
    "constants": lambda entries: entries[0].update(name="blocks.0.attn.constants"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_graphs_that_are_none_are_refused(what, tmp_path):
    small, x = narrow(Relative)
    bp.save(small, tmp_path, x)
    path = tmp_path / "architecture.json"
    description = json.loads(path.read_text())
    SPOILT[what](description["inside"])
    path.write_text(json.dumps(description))
    seal(tmp_path)
    with pytest.raises(CheckpointError, match="cannot rebuild the modules that run as graphs") as caught:
        bp.load(tmp_path, into=Transformer(Relative))
    assert what in str(caught.value) and "export the network again" in str(caught.value)


def test_another_graph_in_the_place_is_noticed(tmp_path):
    """What was changed on purpose computes something else than the whole network's graph."""
    small, x = narrow(Dividing)
    bp.save(small, tmp_path, x)
    path = tmp_path / "architecture.json"
    description = json.loads(path.read_text())
    nodes = description["inside"][1]["evaluation"]["nodes"]
    last = nodes[-1]["returns"][0]
    nodes.insert(-1, {"name": "more", "op": "aten::tanh.default", "args": [last]})
    nodes[-1]["returns"] = [{"node": "more"}]
    path.write_text(json.dumps(description))
    seal(tmp_path)
    with pytest.raises(UnsupportedNetworkError, match="computes something else"):
        bp.load(tmp_path, into=Transformer(Dividing))
