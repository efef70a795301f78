"""Multiply-accumulates, form by form: kernels that run as one operation count what their products are."""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bayesprune as bp
from bayesprune.errors import CountWarning
from bayesprune.structure.counting import Counter
from bayesprune.structure.graph import analyse

STEPS, FEATURES, WIDTH = 5, 8, 16
LSTM = 4 * WIDTH * (FEATURES + WIDTH)
ATTENTION = 6 * 4 * 32 * 32 + 2 * 6 * 6 * 32
ENCODER = ATTENTION + 6 * 2 * 32 * 64


class Recurrent(nn.Module):
    """The last state of a recurrent layer, read by a linear one."""

    def __init__(self, kind: type[nn.Module], inputs: int = 12, **settings: object) -> None:
        super().__init__()
        self.first = nn.Linear(8, 12)
        self.r = kind(inputs, WIDTH, batch_first=True, **settings)
        self.h = nn.Linear(self.r(torch.zeros(1, 1, inputs))[0].shape[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.r(self.first(x))[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.h = nn.MultiheadAttention(32, 4, batch_first=True), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Pair(nn.Module):
    """nn.Bilinear after nn.Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pair = nn.Linear(4, 8), nn.Bilinear(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.pair(x, x)


def encoder(frozen: bool, **settings: object) -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, **settings)
    return nn.Sequential(layer.requires_grad_(not frozen), nn.Flatten(), nn.Linear(192, 1))


def lstm(dtype: torch.dtype = torch.float32, **settings: object) -> tuple[nn.Module, Tensor]:
    return nn.LSTM(FEATURES, WIDTH, batch_first=True, **settings).to(dtype), torch.randn(
        1, STEPS, FEATURES
    ).to(dtype)


FORMS: dict[str, tuple[Callable[[], tuple[nn.Module, Tensor]], int]] = {
    "LSTM between linear layers": (
        lambda: (Recurrent(nn.LSTM), torch.randn(1, 5, 8)),
        5 * 8 * 12 + 5 * 4 * 16 * (12 + 16) + 48,
    ),
    "GRU between linear layers": (
        lambda: (Recurrent(nn.GRU), torch.randn(1, 5, 8)),
        5 * 8 * 12 + 5 * 3 * 16 * (12 + 16) + 48,
    ),
    "RNN between linear layers": (
        lambda: (Recurrent(nn.RNN), torch.randn(1, 5, 8)),
        5 * 8 * 12 + 5 * 16 * (12 + 16) + 48,
    ),
    "LSTM": (lstm, STEPS * LSTM),
    "LSTM in bfloat16": (lambda: lstm(torch.bfloat16), STEPS * LSTM),
    "LSTM in float64": (lambda: lstm(torch.float64), STEPS * LSTM),
    "LSTM frozen": (lambda: (lstm()[0].requires_grad_(False), lstm()[1]), STEPS * LSTM),
    "LSTM of two layers and directions": (
        lambda: lstm(num_layers=2, bidirectional=True),
        STEPS * (2 * LSTM + 2 * 4 * WIDTH * (2 * WIDTH + WIDTH)),
    ),
    "LSTM with projections": (
        lambda: lstm(proj_size=4),
        STEPS * (4 * WIDTH * (FEATURES + 4) + 4 * WIDTH),
    ),
    "LSTM cell": (lambda: (nn.LSTMCell(FEATURES, WIDTH), torch.randn(1, FEATURES)), LSTM),
    "encoder layer": (lambda: (encoder(False), torch.randn(1, 6, 32)), ENCODER + 192),
    "encoder layer frozen": (lambda: (encoder(True), torch.randn(1, 6, 32)), ENCODER + 192),
    "encoder layer frozen, norm first": (
        lambda: (encoder(True, norm_first=True), torch.randn(1, 6, 32)),
        ENCODER + 192,
    ),
    "attention": (lambda: (Attention(), torch.randn(1, 6, 32)), ATTENTION + 96),
    "attention frozen": (lambda: (Attention().requires_grad_(False), torch.randn(1, 6, 32)), ATTENTION + 96),
    "bilinear after linear": (lambda: (Pair(), torch.randn(1, 4)), 32 + 8 * 8 * 3 + 8 * 3),
    "grouped convolution": (lambda: (nn.Conv2d(4, 6, 3, groups=2), torch.randn(1, 4, 5, 5)), 9 * 6 * 2 * 9),
    "transposed convolution": (lambda: (nn.ConvTranspose1d(4, 6, 3), torch.randn(1, 4, 5)), 5 * 4 * 6 * 3),
    "convolution in 3 dimensions": (lambda: (nn.Conv3d(2, 3, 2), torch.randn(1, 2, 3, 3, 3)), 8 * 6 * 8),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_network_counts_its_products(name) -> None:
    network, x = FORMS[name][0]()
    for mode in (True, False):
        assert bp.count(network.train(mode), x).macs == FORMS[name][1]
        assert bp.count(network, torch.cat([x, x, x])).macs == FORMS[name][1]  # of one row


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


OPERATIONS: dict[str, tuple[Callable[[], object], int]] = {
    "mv": (lambda: weight(3, 5).mv(torch.randn(5)), 15),
    "matmul, a matrix and a vector": (lambda: weight(3, 5) @ torch.randn(5), 15),
    "matmul, a vector and a matrix": (lambda: torch.randn(3) @ weight(3, 5), 15),
    "matmul, batches": (lambda: torch.randn(2, 1, 3, 5) @ weight(4, 5, 6), 2 * 4 * 3 * 5 * 6),
    "dot": (lambda: weight(5).dot(torch.randn(5)), 5),
    "vdot": (lambda: torch.vdot(weight(5), torch.randn(5)), 5),
    "inner": (lambda: torch.inner(weight(3, 5), torch.randn(2, 5)), 30),
    "addmv": (lambda: torch.addmv(torch.randn(3), weight(3, 5), torch.randn(5)), 15),
    "addr": (lambda: torch.addr(torch.randn(3, 5), weight(3), torch.randn(5)), 15),
    "addbmm": (lambda: torch.addbmm(torch.randn(3, 4), torch.randn(2, 3, 5), weight(2, 5, 4)), 120),
    "baddbmm": (lambda: torch.baddbmm(torch.randn(2, 3, 4), torch.randn(2, 3, 5), weight(2, 5, 4)), 120),
    "multi_dot": (lambda: torch.linalg.multi_dot([torch.randn(2, 5), weight(5, 3), weight(3, 4)]), 30 + 24),
    "tensordot": (lambda: torch.tensordot(torch.randn(2, 5), weight(5, 3), 1), 30),
    "bilinear": (lambda: F.bilinear(torch.randn(2, 8), torch.randn(2, 7), weight(3, 8, 7)), 2 * (168 + 21)),
    "einsum of three": (
        lambda: torch.einsum("bi,oij,bj->bo", torch.randn(2, 8), weight(3, 8, 7), torch.randn(2, 7)),
        2 * (168 + 21),
    ),
    "distances, few": (lambda: torch.cdist(torch.randn(2, 5), weight(3, 5)), 30),
    "distances, many": (lambda: torch.cdist(torch.randn(30, 5), weight(31, 5)), 30 * 31 * 5),
    "distances without squares": (lambda: torch.cdist(torch.randn(2, 5), weight(3, 5), p=1.0), 0),
    "bags": (lambda: F.embedding_bag(torch.tensor([[0, 1], [2, 3]]), weight(5, 4)), 0),
    "weighted bags": (
        lambda: F.embedding_bag(
            torch.tensor([[0, 1], [2, 3]]), weight(5, 4), per_sample_weights=torch.randn(2, 2), mode="sum"
        ),
        16,
    ),
    "sparse": (lambda: torch.sparse.mm(torch.eye(3, 5).to_sparse(), weight(5, 4)), 3 * 4),
    "int8": (lambda: torch._int_mm(torch.ones(17, 8).char(), torch.ones(8, 16).char()), 17 * 8 * 16),
    "addmm with activation": (
        lambda: torch._addmm_activation(torch.randn(3), torch.randn(2, 5), weight(5, 3)), 30,
    ),
    "convolution, time first": (
        lambda: torch.conv_tbc(torch.randn(7, 2, 3), weight(3, 3, 4), torch.randn(4), 1), 7 * 2 * 36,
    ),
    "packed rows": (
        lambda: nn.LSTM(8, 16)(nn.utils.rnn.pack_sequence([torch.randn(5, 8), torch.randn(3, 8)])),
        8 * LSTM,
    ),
    "padded rows of a frozen encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)
        .eval().requires_grad_(False)(
            torch.randn(2, 6, 32), src_key_padding_mask=torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
        ),
        2 * (10 * 4 * 32 * 32 + 10 * 2 * 32 * 64 + 2 * 32 * (36 + 16)),
    ),
    "frozen attention to others": (
        lambda: nn.MultiheadAttention(32, 4, batch_first=True).eval().requires_grad_(False)(
            torch.randn(2, 6, 32), *[torch.randn(2, 7, 32)] * 2
        ),
        2 * ((6 + 7 + 7 + 6) * 32 * 32 + 2 * 6 * 7 * 32),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:Sparse")
def test_an_operation_counts_its_products(name) -> None:
    with Counter() as counter:
        OPERATIONS[name][0]()
    assert counter.macs == OPERATIONS[name][1]


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this PyTorch has no grouped products")
@pytest.mark.parametrize(
    ("first", "second", "right"),
    [
        ((4, 8), (2, 8, 16), 4 * 8 * 16),
        ((2, 4, 8), (2, 8, 16), 2 * 4 * 8 * 16),
        ((16, 4), (4, 16), 16 * 4 * 16),
    ],
)
def test_grouped_products_of_experts_count(first, second, right) -> None:
    cut = torch.tensor([1, 4], dtype=torch.int32)
    with Counter() as counter:
        F.grouped_mm(torch.randn(first), weight(*second), offs=None if len(first) == 3 else cut)
    assert counter.macs == right


@torch.library.custom_op("bayesprune_tests::experts", mutates_args=())
def experts(x: Tensor, weights: Tensor) -> Tensor:
    """Each third of the rows by a matrix of its own, out of sight of whoever calls it."""
    return torch.cat([part @ matrix for part, matrix in zip(x.chunk(3), weights, strict=True)])


@torch.library.custom_op("bayesprune_tests::closed", mutates_args=())
def closed(x: Tensor, weights: Tensor) -> Tensor:
    """A kernel that is no PyTorch inside."""
    return torch.from_numpy(x.detach().numpy() @ weights.detach().numpy())


class Calls(nn.Module):
    def __init__(self, operation: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.operation, self.w, self.h = operation, weight(*shape), nn.Linear(shape[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.operation(x, self.w))


@pytest.mark.parametrize("trains", [True, False])
def test_custom_operations_are_counted_by_what_they_run(trains) -> None:
    network = Calls(experts, 3, 5, 4)
    network.w.requires_grad_(trains)
    assert bp.count(network, torch.randn(6, 5)).macs == 5 * 4 + 4 * 2


def by_hand(x: Tensor, w: Tensor) -> Tensor:
    return (x[:, None] * w).sum(-1)


@pytest.mark.parametrize(
    ("operation", "named"), [(by_hand, "'w' (in mul)"), (closed, "'w' (in bayesprune_tests.closed)")]
)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_weights_that_multiply_uncounted_are_named(operation, named) -> None:
    with pytest.warns(CountWarning) as caught:
        bp.count(Calls(operation, 5, 5), torch.randn(2, 5))
    assert [named in str(warning.message) for warning in caught] == [True]


class Quiet(nn.Module):
    """Weights that only add, scale, are looked up, or make other weights: nothing is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places, self.norm = nn.Embedding(7, 5), weight(1, 4, 5), nn.LayerNorm((4, 5))
        self.scale, self.w, self.change = weight(1, 1, 5), weight(3, 5), weight(5, 5)
        self.register_buffer("mask", torch.ones(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.table(x) + self.places) * self.scale
        return F.linear(x.mean(1), (self.w * self.mask) @ self.change)


def test_nothing_is_named_where_nothing_is_missing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bp.count(Quiet(), torch.randint(7, (1, 4))).macs == 3 * 5 * 5 + 15


def test_analysis_names_them_too() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.up, self.hand = nn.Linear(5, 5), nn.Linear(5, 6), weight(4, 5)
            self.down, self.head = nn.Linear(6, 5), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(by_hand(x + self.down(self.up(x).relu()), self.hand))

    with pytest.warns(CountWarning, match="'hand' \\(in mul\\)"):
        analyse(Both(), torch.randn(2, 5))


def test_a_unit_of_a_recurrent_layer_costs_what_it_costs() -> None:
    """Its own rows, and its column in the others', at every step."""
    analysis = analyse(Recurrent(nn.LSTM), torch.randn(2, 5, 8))
    costs = {group.name: group.macs for group in analysis.groups}
    assert analysis.gated.macs() == 9488
    assert costs == {"first": 5 * (8 + 4 * 16), "r": 5 * 4 * (12 + 16 + 15) + 3}
    for units in (1, 7, 15):
        alive = {"r": torch.arange(16) < units}
        small = analysis.cut(alive)
        assert (
            bp.count(small, torch.randn(1, 5, 8)).macs
            == 5 * 8 * 12 + 5 * 4 * units * (12 + units) + 3 * units
        )


@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning")  # a unit is 7 % of it
def test_a_budget_of_half_the_multiply_accumulates_ends_there_by_the_true_count() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 5, 8)
    y = (x[:, -1, 0] > 0).long() + (x[:, -2, 1] > 0).long()
    gated = bp.gate(Recurrent(nn.LSTM), x[:2], prior=bp.Budget(macs=0.5), likelihood=bp.Categorical(rows=200))
    result = bp.fit(gated, (x, y), epochs=12, batch_size=20, seed=0)
    macs = bp.count(bp.prune(result), x[:1]).macs
    assert 0.45 * 9488 <= macs <= 0.5 * 9488
    assert result.history[-1].macs_percent == pytest.approx(100 * macs / 9488)
