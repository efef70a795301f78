"""Every operation on a parameter itself: exact, or whole with a reason."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from bayesprune.structure import routed_linear
from bayesprune.structure.graph import analyse
from bayesprune.structure.graph.rules.call import RULES
from tests.structure.graph.checks import assert_same, drawn_alive, gates_of, run
from tests.structure.graph.networks import randomise_

pytestmark = pytest.mark.filterwarnings("ignore:Multiply-accumulates")  # products written as sums of products
ON_PARAMETERS = {
    "rows that meet": {
        "aten.index_add": [
            ((6, 3), lambda p: p.index_add(1, torch.tensor([0, 2]), p[:, :2]).sum(1)),
        ],
        "aten.scatter_add": [
            ((5, 6), lambda p: p.scatter_add(0, torch.tensor([[1] * 6, [3] * 6]), p[:2]).sum(0)),
        ],
        "aten._sparse_mm": [
            ((5, 6), lambda p: torch.sparse.mm(torch.eye(5, dtype=p.dtype).to_sparse(), p).sum(0)),
        ],
        "bayesprune.routed_linear": [
            (
                (2, 6, 3),
                lambda p: routed_linear(p.new_ones(4, 3), p, None, torch.tensor([0, 1, 0, 1])).sum(0),
            ),
        ],
    },
    "norms": {
        "aten.layer_norm": [
            ((1, 6), lambda p: F.layer_norm(p, (6,))),
            ((6, 3), lambda p: F.layer_norm(p, (3,)).sum(1)),
        ],
        "aten.rms_norm": [
            ((1, 6), lambda p: F.rms_norm(p, (6,))),
            ((6, 3), lambda p: F.rms_norm(p, (3,)).sum(1)),
        ],
        "aten.batch_norm": [
            ((3, 6), lambda p: F.batch_norm(p, None, None, training=True)[0]),
        ],
        "aten.instance_norm": [
            ((2, 6, 4), lambda p: F.instance_norm(p)[0, :, 0]),
        ],
        "aten.group_norm": [
            ((2, 6), lambda p: F.group_norm(p, 2)[0]),
        ],
        "aten._weight_norm": [
            ((6, 3), lambda p: torch._weight_norm(p, p.sum(1, keepdim=True), 0).sum(1)),
        ],
    },
    "moved": {
        "aten.glu": [
            ((12,), lambda p: F.glu(p, 0)),
            ((2, 6), lambda p: F.glu(p, 0)[0]),
        ],
        "aten.pad": [
            ((4,), lambda p: F.pad(p, (1, 1))),
            ((6, 2), lambda p: F.pad(p, (1, 1)).sum(1)),
        ],
        "aten.reflection_pad1d": [
            ((6, 3), lambda p: F.pad(p, (1, 1), mode="reflect").sum(1)),
        ],
        "aten.view": [
            ((6,), lambda p: p.view(1, 6)),
            ((2, 3), lambda p: p.view(6)),
            ((12,), lambda p: p.view(6, 2).sum(1)),
        ],
        "aten.reshape": [
            ((6,), lambda p: p.reshape(6, 1)[:, 0]),
            ((2, 3), lambda p: p.reshape(-1)),
        ],
        "aten.unfold": [
            ((7,), lambda p: p.unfold(0, 2, 1).sum(1)),
        ],
        "aten.cat": [
            ((3,), lambda p: torch.cat([p, p])),
        ],
        "aten.stack": [
            (
                (6,),
                lambda p: torch.stack(
                    [
                        p,
                        p.cos(),
                    ]
                ).sum(0),
            ),
            ((3,), lambda p: torch.stack([p, p], 1).view(6)),
        ],
        "aten.roll": [
            ((6,), lambda p: p.roll(1)),
        ],
        "aten.flip": [
            ((6,), lambda p: p.flip(0)),
        ],
        "aten.index": [
            ((9,), lambda p: p[torch.tensor([0, 2, 3, 5, 7, 8]),]),
        ],
        "aten.index_select": [
            ((9, 6), lambda p: p.index_select(0, torch.tensor([1]))[0]),
        ],
        "aten.pixel_shuffle": [
            ((24, 1, 1), lambda p: F.pixel_shuffle(p, 2).sum((1, 2))),
        ],
        "aten.repeat_interleave": [
            ((3,), lambda p: p.repeat_interleave(2)),
        ],
        "aten.repeat": [
            ((3,), lambda p: p.repeat(2)),
        ],
        "aten.split": [
            ((12,), lambda p: p.split(6)[1]),
        ],
        "aten.chunk": [
            ((12,), lambda p: p.chunk(2)[1]),
        ],
        "aten.expand_as": [
            ((6,), lambda p: p.expand_as(torch.zeros(2, 6))[1]),
        ],
        "aten.diagonal": [
            ((6, 6), torch.diagonal),
        ],
    },
    "pooled": {
        "aten.avg_pool1d": [
            ((6, 4), lambda p: F.avg_pool1d(p, 2).sum(1)),
            ((1, 12), lambda p: F.avg_pool1d(p, 2)[0]),
        ],
        "aten.avg_pool2d": [
            ((1, 6, 4, 4), lambda p: F.avg_pool2d(p, 2).sum((0, 2, 3))),
        ],
        "aten.max_pool2d": [
            ((1, 6, 4, 4), lambda p: F.max_pool2d(p, 2).sum((0, 2, 3))),
        ],
        "aten.adaptive_avg_pool2d": [
            ((6, 4, 4), lambda p: F.adaptive_avg_pool2d(p, 1)[:, 0, 0]),
        ],
        "aten.upsample_nearest2d": [
            ((1, 6, 2, 2), lambda p: F.interpolate(p, (4, 4)).sum((0, 2, 3))),
        ],
        "aten.upsample_bilinear2d": [
            ((1, 6, 2, 2), lambda p: F.interpolate(p, (3, 3), mode="bilinear").sum((0, 2, 3)))
        ],
        "aten.upsample_linear1d": [
            ((1, 1, 3), lambda p: F.interpolate(p, 6, mode="linear")[0, 0]),
        ],
        "aten.upsample_bicubic2d": [
            ((1, 6, 2, 2), lambda p: F.interpolate(p, (3, 3), mode="bicubic").sum((0, 2, 3)))
        ],
    },
    "reduced": {
        "aten.mean": [
            ((6, 3), lambda p: p.mean(1)),
            ((3, 6), lambda p: p.mean(0) + p.mean()),
        ],
        "aten.var": [
            ((6, 3), lambda p: p.var(1)),
        ],
        "aten.max": [
            ((6, 3), lambda p: p.max(1)[0]),
        ],
        "aten.median": [
            ((6, 3), lambda p: p.median(1)[0]),
        ],
        "aten.norm": [
            ((6, 3), lambda p: p.norm(dim=1) * p.norm()),
        ],
        "aten.linalg_vector_norm": [
            ((6, 3), lambda p: torch.linalg.vector_norm(p, dim=1)),
        ],
        "aten.softmax": [
            ((6,), lambda p: p.softmax(0)),
            ((6, 3), lambda p: p.softmax(1)[:, 0]),
        ],
        "aten.log_softmax": [
            ((6,), lambda p: p.log_softmax(0)),
        ],
        "aten.cumsum": [
            ((6,), lambda p: p.cumsum(0)),
            ((6, 2), lambda p: p.cumsum(1)[:, 1]),
        ],
        "aten.cumprod": [
            ((6,), lambda p: p.cumprod(0)),
        ],
        "aten.argmax": [
            ((6, 3), lambda p: p.argmax(1).double()),
        ],
    },
    "products": {
        "aten.linear": [
            ((3, 6), lambda p: F.linear(p, p)[0, :1]),
            ((6, 3), lambda p: F.linear(p, p[0])),
        ],
        "aten.addmm": [
            ((6, 6), lambda p: torch.addmm(p, p, p)[0]),
        ],
        "aten.matmul": [
            ((6, 6), lambda p: (p @ p)[0]),
            ((6,), lambda p: p @ p),
            ((6, 3), lambda p: p @ p[0]),
        ],
        "aten.mm": [
            ((6, 6), lambda p: torch.mm(p, p)[0]),
        ],
        "aten.bmm": [
            ((2, 6, 6), lambda p: torch.bmm(p, p)[0, 0]),
        ],
        "aten.baddbmm": [
            ((2, 6, 6), lambda p: torch.baddbmm(p, p, p)[0, 0]),
        ],
        "aten.einsum": [
            ((3, 6), lambda p: torch.einsum("ij->j", p)),
            ((3, 6), lambda p: torch.einsum("ij,ij->j", p, p)),
            ((6, 6), lambda p: torch.einsum("ii->i", p)),
        ],
        "aten.conv1d": [
            ((6, 6, 1), lambda p: F.conv1d(p[:, :, 0].T, p)[:, 0]),
            ((1, 6, 6), lambda p: F.conv1d(p, torch.ones(6, 6, 1, dtype=p.dtype))[0, :, 0]),
        ],
        "aten.conv2d": [
            ((1, 6, 2, 2), lambda p: F.conv2d(p, torch.ones(6, 6, 2, 2, dtype=p.dtype))[0, :, 0, 0])
        ],
        "aten.conv_transpose1d": [
            ((1, 6, 6), lambda p: F.conv_transpose1d(p, torch.ones(6, 6, 1, dtype=p.dtype))[0, :, 0])
        ],
        "aten.scaled_dot_product_attention": [
            ((1, 2, 3, 6), lambda p: F.scaled_dot_product_attention(p, p, p)[0, 0, 0])
        ],
        "aten.embedding": [
            ((4, 6), lambda p: F.embedding(torch.tensor([2]), p)),
            ((4, 6), lambda p: F.embedding(torch.tensor([2]), p * 2)),
        ],
        "aten.prelu": [
            ((6,), lambda p: F.prelu(p, torch.ones(1, dtype=p.dtype))),
            ((6,), lambda p: F.prelu(p[None], p)[0]),
        ],
    },
    "rarer": {
        "aten.fft_fft": [((6,), lambda p: torch.fft.fft(p).real)],
        "aten.view_as_complex": [((6, 2), lambda p: torch.view_as_complex(p).abs())],
        "aten.gather": [((6,), lambda p: p.gather(0, torch.arange(6).flip(0)))],
        "aten.embedding_bag": [((4, 6), lambda p: F.embedding_bag(torch.tensor([[1, 2]]), p))],
        "aten.gru_cell": [((1, 6), lambda p: torch.gru_cell(p, p, p.new_ones(18, 6), p.new_ones(18, 6)))],
        "aten.max_unpool2d": [
            (
                (1, 6, 2, 2),
                lambda p: F.max_unpool2d(*F.max_pool2d(p, 2, return_indices=True), 2).sum((0, 2, 3)),
            ),
        ],
        "aten.bilinear": [((1, 6), lambda p: F.bilinear(p, p, p.new_ones(6, 6, 6)))],
        "aten.gelu": [((6,), F.gelu)],
    },
    "pointwise": {
        "aten.clone": [
            ((6,), torch.clone),
        ],
        "aten.dropout": [
            ((6,), lambda p: F.dropout(p, 0.0, True)),
        ],
        "aten.zeros_like": [
            ((6,), lambda p: torch.zeros_like(p) + p),
        ],
        "aten.new_zeros": [
            ((6,), lambda p: p.new_zeros(6) + p),
        ],
        "aten.where": [
            ((6,), lambda p: torch.where(p > 0, p, 2 * p)),
        ],
        "aten.gelu": [
            ((6, 1), lambda p: F.gelu(p)[:, 0] + p.sigmoid()[:, 0]),
        ],
        "aten.mul": [
            ((6,), lambda p: (p[:, None] * p[None])[0]),
            ((6, 3), lambda p: (p * p[:1]).sum(1)),
        ],
        "aten.masked_fill": [
            ((6,), lambda p: p.masked_fill(p > 1, 1.0)),
        ],
    },
}


class OnParameters(nn.Module):
    """Units times what operations make of parameters, each in a branch of its own."""

    def __init__(self, operations):
        super().__init__()
        self.operations = [case for cases in operations.values() for case in cases]
        self.tables = nn.ParameterList([torch.zeros(shape) for shape, _ in self.operations])
        self.layers = nn.ModuleList([nn.Linear(4, 6) for _ in self.operations])
        self.heads = nn.ModuleList([nn.Linear(6, 3) for _ in self.operations])

    def forward(self, x):
        found = []
        for layer, table, head, (_, operation) in zip(
            self.layers, self.tables, self.heads, self.operations, strict=True
        ):
            found.append(head(layer(x).tanh() * operation(table)))
        return torch.stack([y if y.ndim == 2 else y.mean(1) for y in found], 1)


def assert_exact(network, inputs, seeds=(1, 2)):
    """Cuts equal masks, and gates of one the network itself, in both modes.

    Returns:
        The analysis.
    """
    analysis = analyse(network, tuple(x[:2] for x in inputs))
    whole = {training: run(network, inputs, training) for training in (False, True)}
    for seed in seeds:
        alive = drawn_alive(analysis, seed)
        small = analysis.cut(alive)
        for training in (False, True):
            assert_same(run(analysis.gated, inputs, training), whole[training])
            masked = run(analysis.gated, inputs, training, gates_of(alive, torch.float64))
            assert_same(run(small, inputs, training), masked)
    return analysis


@pytest.mark.parametrize("family", ON_PARAMETERS)
def test_operations_on_parameters_are_exact_or_keep_them_whole(family):
    network = randomise_(OnParameters(ON_PARAMETERS[family]).double())
    analysis = assert_exact(network, (torch.randn(5, 4, dtype=torch.float64),), seeds=(1,))
    cut = {slot.tensor.partition(".")[2] for slot in analysis.slots if slot.tensor.startswith("layers")}
    told = {frozen.place.partition(".")[2].partition(" ")[0] for frozen in analysis.frozen}
    whole = [i for i in range(len(network.operations)) if f"{i}.weight" not in cut]
    assert all(str(i) in told for i in whole), f"no reason for {whole} in {told}"
    assert len(whole) < len(network.operations)


def test_every_kind_of_rule_is_put_on_a_parameter():
    tried = {name for family in ON_PARAMETERS.values() for name in family}
    assert {function for function, _ in RULES.values()} - {RULES[n][0] for n in tried if n in RULES} == {
        RULES["aten.lstm"][0]
    }


class NormedEmbedding(nn.Module):
    """A table whose rows, or columns, have lengths of their own."""

    def __init__(self, dim):
        super().__init__()
        self.embed = parametrizations.weight_norm(nn.Embedding(7, 6), dim=dim)
        self.fc, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.fc(self.embed(x).sigmoid().mean(1)).tanh())


@pytest.mark.parametrize("dim", [0, 1])
def test_embeddings_under_weight_norm(dim):
    network = randomise_(NormedEmbedding(dim).double())
    analysis = assert_exact(network, (torch.randint(7, (5, 4)),))
    assert {group.name for group in analysis.groups} >= {"fc"}
