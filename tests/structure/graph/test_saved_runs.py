"""What is told without running a network again is what running it would have told."""

import pytest
import torch
from torch import fx, nn

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure import ExpectedCost
from bayesprune.structure.graph import analyse
from bayesprune.structure.graph.analysis import structure as structures
from bayesprune.structure.graph.analysis.costs import _counted
from bayesprune.structure.graph.analysis.shape_counts import macs_by_shapes
from bayesprune.structure.graph.capture.leading import places_of_rows
from bayesprune.structure.graph.capture.rows import row_dimensions
from bayesprune.structure.graph.capture.sizes import _far_together
from bayesprune.structure.graph.capture.twins import twins
from tests.nightly import one_in
from tests.structure.graph.networks import CASES


class Image(nn.Module):
    """A residual block under batch normalisation, with a dropout and a classifier."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.drop, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Dropout(0.5), nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.head(self.drop((x + self.second(x)).mean((2, 3))))


IMAGES = torch.randn(2, 3, 64, 64)


@pytest.mark.parametrize("name", one_in(8, CASES))
def test_nothing_is_run_that_shapes_and_the_other_mode_tell(name, monkeypatch):
    case = CASES[name]
    found = analyse(case.network(), case.batch(2)).structure
    captured = found.captured
    for training, findings in found.findings.items():
        graph = captured.graphs[training]
        told = places_of_rows(graph, findings.sizes, 2)
        assert row_dimensions(graph, captured.example, told.keys()) == told
    counts = macs_by_shapes(captured.graphs[False], captured.network, found.findings[False])
    assert counts is None or counts == _counted(captured)
    monkeypatch.setattr(structures, "mirrored", lambda *_: None)
    other = analyse(case.network(), case.batch(2)).structure
    assert other.groups == found.groups and set(other.frozen) == set(found.frozen)
    for ours, theirs in zip(_in_tensors(found), _in_tensors(other), strict=True):
        assert (ours.tensor, ours.dim, ours.group) == (theirs.tensor, theirs.dim, theirs.group)
        assert torch.equal(ours.unit_ids, theirs.unit_ids)
    for ours, theirs in zip(found.findings[False].reads, other.findings[False].reads, strict=True):
        assert (ours.node.name, ours.source.name, ours.dim) == (
            theirs.node.name,
            theirs.source.name,
            theirs.dim,
        )


def _in_tensors(structure):
    """Slots but those of zeros that a mode pads with."""
    held = structure.captured.network.state_dict().keys()
    return [slot for slot in structure.slots if slot.tensor in held]


@pytest.mark.parametrize("name", one_in(10, CASES))
def test_what_one_unit_accounts_for_is_the_slope_of_the_expected_cost(name):
    case = CASES[name]
    found = analyse(case.network(), case.batch(2)).structure
    cost = ExpectedCost.of(found.terms, found.groups)
    theta = {g.name: torch.ones(g.size, dtype=torch.double, requires_grad=True) for g in found.groups}
    expected = cost(theta)
    for at, total in enumerate((expected.parameters, expected.macs)):
        slopes = torch.autograd.grad(total, list(theta.values()), retain_graph=True, allow_unused=True)
        for group, slope in zip(theta, slopes, strict=True):
            told = cost.of_one_unit().get(group)
            assert (told is None) == (slope is None)
            assert told is None or told[at] == pytest.approx(float(slope.mean()), rel=1e-12)


def test_a_convolutional_network_is_run_six_times(monkeypatch):
    runs, forward = [], Image.forward
    monkeypatch.setattr(Image, "forward", lambda self, x: (runs.append(tuple(x.shape)), forward(self, x))[1])
    structure = analyse(Image(), IMAGES).structure
    assert structure.findings[False].mirrored
    assert structure.captured.form.sizes == ((3, None, None),)
    # looked at; training at two numbers of rows and far away; evaluation as it is and far away
    assert runs == [(2, 3, 64, 64), (2, 3, 64, 64), (5, 3, 64, 64), (2, 3, 32, 33), (2, 3, 64, 64),
                    (3, 3, 32, 33)]  # fmt: skip


class TwoHeads(Image):
    """Another layer in evaluation."""

    def forward(self, x):
        return super().forward(x) if self.training else super().forward(x).tanh()


class Scaled(Image):
    """Another number in evaluation."""

    def forward(self, x):
        return super().forward(x * (1.0 if self.training else 2.0))


class Places(Image):
    """Integers that a dropout chooses."""

    def forward(self, x):
        x = self.drop(x)
        return super().forward(x) + torch.zeros(9).index_select(0, (x.mean((1, 2, 3)) > 0).long())[:, None]


@pytest.mark.parametrize("network", [TwoHeads, Scaled, Places])
def test_modes_that_differ_by_more_are_looked_at_one_by_one(network):
    assert not analyse(network(), IMAGES[..., :8, :8]).structure.findings[False].mirrored


class KnowsRowsInEvaluation(Image):
    """Trained at any number of rows; evaluated, it does something else on more than two."""

    def forward(self, x):
        return super().forward(x if self.training or len(x) < 3 else -x)


class KnowsSizeFarAway(Image):
    """The sign of small images is another one."""

    def forward(self, x):
        return super().forward(x if x.shape[-1] > 40 else -x)


def test_what_was_recorded_in_training_is_no_proof_of_evaluation():
    with pytest.raises(UnsupportedNetworkError, match="in evaluation computes something else"):
        analyse(KnowsRowsInEvaluation(), IMAGES[..., :8, :8])


def test_sizes_that_a_graph_has_baked_in_are_fixed():
    assert analyse(KnowsSizeFarAway(), IMAGES).structure.captured.form.sizes == ((3, None, 64),)


@pytest.mark.parametrize("size", [6, 28, 64, 225])
def test_no_image_is_square_far_away(size):
    found = [tuple(x.shape[2:]) for (x,) in _far_together((torch.zeros(2, 3, size, size),))]
    assert found and all(height != width for height, width in found)


def test_twins_hold_the_same_numbers():
    def graph(constant, places):
        built, holder = fx.Graph(), nn.Module()
        holder.register_buffer("c", torch.tensor(constant))
        x, c = built.placeholder("x"), built.get_attr("c")
        built.output((built.call_function(torch.ops.aten.sum.dim_IntList, (x, places)), c))
        return fx.GraphModule(holder, built)

    assert twins(graph(1.0, [1]), graph(1.0, [1])) is not None
    assert twins(graph(1.0, [1]), graph(2.0, [1])) is None
    assert twins(graph(1.0, [1]), graph(1.0, [0])) is None


class Windows(nn.Module):
    """Heads, windows that are rows of their own, a sum over letters, and what mixes rows at the end."""

    def __init__(self, last):
        super().__init__()
        self.qkv, self.head, self.last = nn.Linear(8, 24), nn.Linear(8, 8), last

    def forward(self, x):  # (B, 16, 8)
        b = x.shape[0]
        x = x.reshape(b, 4, 4, 8).roll((1, 1), (1, 2)).permute(0, 2, 1, 3).reshape(b * 4, 4, 8)
        q, k, v = self.qkv(x).reshape(b * 4, 4, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
        x = (weights @ v).swapaxes(1, 2).reshape(b, 4, 4, 8).mean(2).unsqueeze(0).select(0, 0)
        return self.last(self, x)


MIXED = {
    "in order": lambda self, x: self.head(x.transpose(0, 1)).relu().sum(0),
    "rolled": lambda self, x: self.head(x).roll(1, 0),
    "flipped": lambda self, x: self.head(x).flip(0),
    "summed": lambda self, x: self.head(x) + self.head(x).sum(0, keepdim=True),
    "summed up": lambda self, x: self.head(x).cumsum(0),
    "letters": lambda self, x: torch.einsum("bij,cij->bc", self.head(x), x).sum(1, keepdim=True),
}


@pytest.mark.parametrize("last", MIXED)
def test_operations_tell_where_rows_are_as_marks_do(last):
    found = analyse(Windows(MIXED[last]), torch.randn(3, 16, 8)).structure
    graph, findings = found.captured.graphs[True], found.findings[True]
    told = places_of_rows(graph, findings.sizes, 2)
    assert row_dimensions(graph, found.captured.example, told.keys()) == told
    after = [n.name for n in graph.graph.nodes if n.op == "call_function" and n in findings.sizes]
    assert told[after[0]] == (0, 1, 1) and (0, 4, 1) in told.values() and (1, 4, 1) in told.values()
    assert (after[-1] in told) == (last == "in order")
