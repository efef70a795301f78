"""Blocks of the field: state spaces, experts, U-Nets, heads of detectors, unpooling.

Each network is compared cut and masked, in both modes; and what of it may go is written down.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.graph import analyse
from tests.structure.graph.test_rules import exact

SEQUENCES, IMAGES = torch.randn(4, 4, 5), torch.randn(4, 3, 8, 8)


def units(analysis):
    """Group → its units, without sections."""
    return {group.name: group.size for group in analysis.groups if not group.optional}


class StateSpace(nn.Module):
    """Channels (7), a state of three numbers for each, and a selective scan."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Linear(5, 6), nn.Linear(6, 14, bias=False)
        self.conv = nn.Conv1d(7, 7, 3, padding=2, groups=7)
        self.select, self.step = nn.Linear(7, 2 + 3 + 3, bias=False), nn.Linear(2, 7)
        self.decay, self.skip = nn.Parameter(torch.rand(7, 3)), nn.Parameter(torch.ones(7))
        self.outer, self.head = nn.Linear(7, 6, bias=False), nn.Linear(6, 3)

    def forward(self, x):  # (rows, time, 5)
        x = self.stem(x)
        h, gate = self.inner(x).chunk(2, -1)  # (rows, time, 7)
        h = F.silu(self.conv(h.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)
        step, b, c = self.select(h).split([2, 3, 3], -1)
        step = F.softplus(self.step(step))
        log_decay = step[..., None] * -self.decay.exp()  # (rows, time, 7, 3)
        y = self.scan(log_decay, step[..., None] * b[:, :, None, :] * h[..., None], c)
        return self.head((x + self.outer((y + h * self.skip) * F.silu(gate))).mean(1))


class LoopedScan(StateSpace):
    def scan(self, log_decay, given, c):
        decay, state, seen = log_decay.exp(), torch.zeros_like(given[:, 0]), []
        for t in range(given.shape[1]):
            state = decay[:, t] * state + given[:, t]
            seen.append((state * c[:, t, None, :]).sum(-1))
        return torch.stack(seen, 1)


class ScanByProducts(StateSpace):
    def scan(self, log_decay, given, c):
        decay, state, seen = log_decay.exp(), torch.zeros_like(given[:, 0]), []
        for t in range(given.shape[1]):
            state = decay[:, t] * state + given[:, t]
            seen.append(torch.matmul(state, c[:, t].unsqueeze(-1))[..., 0])
        return torch.stack(seen, -1).transpose(1, 2)


class ScanBySums(StateSpace):
    def scan(self, log_decay, given, c):
        log_decay = log_decay.cumsum(1)
        return (log_decay.exp() * (given * (-log_decay).exp()).cumsum(1) * c[:, :, None, :]).sum(-1)


@pytest.mark.filterwarnings("ignore:Multiply-accumulates with 'decay':bayesprune.errors.CountWarning")
@pytest.mark.parametrize("kind", [LoopedScan, ScanByProducts, ScanBySums])
def test_channels_of_a_state_space_go_with_their_states(kind):
    analysis = exact(kind(), SEQUENCES)
    assert sorted(units(analysis).values()) == [2, 6, 7]
    assert {slot.tensor for slot in analysis.slots} >= {"conv.weight", "decay", "skip", "outer.weight"}


class Experts(nn.Module):
    """Three experts in one tensor, weighed by a router; hidden units are those of all of them."""

    def __init__(self):
        super().__init__()
        self.stem, self.route, self.head = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 3)
        self.up, self.down = nn.Parameter(torch.zeros(3, 14, 6)), nn.Parameter(torch.zeros(3, 6, 7))
        self.shift = nn.Parameter(torch.zeros(3, 14))

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.experts(x, self.route(x).softmax(-1))).mean(1))

    def expert(self, x, up, shift, down):
        first, second = F.linear(x, up, shift).chunk(2, -1)
        return F.linear(F.silu(first) * second, down)


class SelectedExperts(Experts):
    def experts(self, x, share):
        each = [self.expert(x, self.up[k], self.shift[k], self.down[k]) for k in range(3)]
        return sum(y * share[..., k, None] for k, y in enumerate(each))


class UnboundExperts(Experts):
    def experts(self, x, share):
        each = [self.expert(x, *of) for of in zip(self.up, self.shift, self.down, strict=True)]
        return (torch.stack(each, -1) * share.unsqueeze(-2)).sum(-1)


class InterleavedExperts(Experts):
    """Gates and what they gate take turns, and all experts are one product."""

    def experts(self, x, share):
        rows, time, width = x.shape
        every = x.reshape(-1, width).repeat(3, 1).view(3, -1, width)
        hidden = torch.bmm(every, self.up.transpose(1, 2)) + self.shift[:, None]
        y = torch.bmm(hidden[..., ::2].sigmoid() * hidden[..., 1::2], self.down.transpose(1, 2))
        return (y.view(3, rows, time, width) * share.permute(2, 0, 1)[..., None]).sum(0)


@pytest.mark.parametrize("kind", [SelectedExperts, UnboundExperts, InterleavedExperts])
def test_hidden_units_of_experts_in_one_tensor_go(kind):
    analysis = exact(kind(), SEQUENCES)
    assert units(analysis) == {"stem": 6, "up": 7}


class RoutedModules(nn.Module):
    """Experts that are modules; all are run, and those not chosen weigh nothing."""

    def __init__(self):
        super().__init__()
        self.stem, self.route, self.head = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 4 + k), nn.SiLU(), nn.Linear(4 + k, 6)) for k in range(3)
        )

    def forward(self, x):
        x = self.stem(x)
        share, chosen = self.route(x).softmax(-1).topk(2, -1)
        weighs = (F.one_hot(chosen, 3).to(x.dtype) * share[..., None]).sum(-2)
        each = [expert(x) * weighs[..., k, None] for k, expert in enumerate(self.experts)]
        return self.head((x + sum(each)).mean(1))


def test_hidden_units_of_experts_that_are_modules_go():
    assert sorted(units(exact(RoutedModules(), SEQUENCES)).values()) == [4, 5, 6, 6]


class GivenTheirRows(RoutedModules):
    def forward(self, x):
        x = self.stem(x).flatten(0, 1)
        chosen, out = self.route(x).argmax(-1), torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            rows = torch.where(chosen == k)[0]
            out.index_add_(0, rows, expert(x[rows]))
        return self.head(out)


def test_experts_that_are_given_their_rows_are_refused_with_what_to_write_instead():
    with pytest.raises(UnsupportedNetworkError, match="can be given all rows, and weigh nothing"):
        analyse(GivenTheirRows(), SEQUENCES)


class Level(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = (nn.InstanceNorm2d(outputs, affine=True) for _ in range(2))

    def forward(self, x):
        x = F.leaky_relu(self.norm1(self.conv1(x)), 0.01)
        return F.leaky_relu(self.norm2(self.conv2(x)), 0.01)


class Nested(nn.Module):
    """A U-Net whose levels hold each other, with a second head that is seen while it learns."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = Level(3, 4), Level(4, 6, 2)
        self.lift, self.up = nn.ConvTranspose2d(6, 5, 2, 2, bias=False), Level(9, 4)
        self.head, self.deep = nn.Conv2d(4, 2, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(first)
        y = self.head(self.up(torch.cat((self.lift(second), first), 1)))
        if not self.training:
            return y
        return torch.stack([y, F.interpolate(self.deep(second), y.shape[2:])], 1)


def test_levels_of_a_nested_u_net_go():
    found = units(exact(Nested(), IMAGES))
    assert sorted(found.values()) == [4, 4, 4, 4, 5, 6, 6]


class Detector(nn.Module):
    """Boxes as expectations over bins, of anchors that are built from shapes; raw maps while it learns."""

    def __init__(self):
        super().__init__()
        self.stem, self.next = nn.Conv2d(3, 6, 3, 1, 1), nn.Conv2d(6, 6, 3, 2, 1)
        self.boxes, self.classes = (nn.ModuleList(self.branch(n) for _ in range(2)) for n in (16, 3))
        self.bins = nn.Conv2d(4, 1, 1, bias=False).requires_grad_(False)

    def branch(self, outputs):
        return nn.Sequential(nn.Conv2d(6, 5, 3, 1, 1), nn.BatchNorm2d(5), nn.SiLU(), nn.Conv2d(5, outputs, 1))

    def forward(self, x):
        first = self.stem(x).relu()
        levels = [first, self.next(first).relu()]
        maps = [torch.cat((b(x), c(x)), 1) for x, b, c in zip(levels, self.boxes, self.classes, strict=True)]
        if self.training:
            return maps
        flat = torch.cat([y.view(len(y), 19, -1) for y in maps], 2)
        boxes, classes = flat.split((16, 3), 1)
        boxes = self.bins(boxes.view(len(x), 4, 4, -1).transpose(2, 1).softmax(1)).view(len(x), 4, -1)
        anchors = torch.cat([self.anchors(y) for y in maps]).transpose(0, 1)[None]
        low, high = boxes.chunk(2, 1)
        return torch.cat((anchors - low, anchors + high, classes.sigmoid()), 1)

    def anchors(self, y):
        across, down = (torch.arange(s, dtype=y.dtype) + 0.5 for s in y.shape[:1:-1])
        return torch.stack(torch.meshgrid(down, across, indexing="ij")[::-1], -1).view(-1, 2)


def test_channels_in_front_of_a_detector_s_head_go():
    assert sorted(units(exact(Detector(), IMAGES)).values()) == [5, 5, 5, 5, 6, 6]


class Unpools(nn.Module):
    def __init__(self, dims):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        self.conv1, self.conv2 = conv(3, 6, 3, padding=1), conv(6, 6, 1)
        self.conv3, self.head = conv(6, 5, 3, padding=1), conv(5, 2, 1)
        self.pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1](2, return_indices=True)
        self.unpool = (nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d)[dims - 1](2)

    def forward(self, x):
        y, where = self.pool(self.conv1(x).relu())
        return self.head(self.conv3(self.unpool(self.conv2(y), where)).relu())


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_unpooled_channels_go_with_those_that_were_pooled(dims):
    found = units(exact(Unpools(dims), torch.randn(4, 3, *[4] * dims)))
    assert sorted(found.values()) == [5, 6]


class Packs(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrence, self.head = nn.GRU(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.recurrence(packed)[1][-1])


class ReadsLast(Packs):
    """As the refusal of packed sequences says."""

    def forward(self, x, lengths):
        y = self.recurrence(x)[0]
        at = (lengths - 1)[:, None, None].expand(-1, 1, y.shape[-1])
        return self.head(y.gather(1, at)[:, 0])


def test_packed_sequences_are_refused_with_what_is_the_same():
    torch.manual_seed(0)
    packs, reads, lengths = Packs(), ReadsLast(), torch.tensor([4, 2, 3, 1])
    reads.load_state_dict(packs.state_dict())
    assert torch.allclose(packs(SEQUENCES, lengths), reads(SEQUENCES, lengths), atol=1e-6)
    with pytest.raises(
        UnsupportedNetworkError, match=r"it packs sequences.*read its last step at lengths - 1"
    ):
        analyse(packs, (SEQUENCES, lengths))
    assert units(exact(reads, SEQUENCES, lengths)) == {"recurrence": 6}


class RotatedWhole(nn.Module):
    """Attention whose heads are rotated whole: what is passed on beside the rotated part has no numbers."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(8, 3)

    def heads(self, x):
        x = x.unflatten(-1, (-1, 4)).transpose(1, 2)
        rotated, passed = x[..., :4], x[..., 4:]
        angles = torch.arange(x.shape[2], dtype=x.dtype)[:, None]
        turned = torch.cat([-rotated[..., 2:], rotated[..., :2]], -1)
        return torch.cat([rotated * angles.cos() + turned * angles.sin(), passed], -1)

    def forward(self, x):  # (rows, time, 5)
        v = self.v(x).unflatten(-1, (-1, 4)).transpose(1, 2)
        y = F.scaled_dot_product_attention(self.heads(self.q(x)), self.heads(self.k(x)), v)
        return self.out(y.transpose(1, 2).flatten(2)).mean(1)


def test_a_part_without_numbers_is_put_beside_others():
    assert units(exact(RotatedWhole(), SEQUENCES)) == {"q": 2}


class BothWays(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrence, self.head = nn.GRU(5, 6, batch_first=True, bidirectional=True), nn.Linear(12, 3)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.recurrence(packed)[1].transpose(0, 1).flatten(1))


class TurnedRound(nn.Module):
    """As the refusal says of the other direction."""

    def __init__(self):
        super().__init__()
        self.there, self.back = (nn.GRU(5, 6, batch_first=True) for _ in range(2))
        self.head = nn.Linear(12, 3)

    def forward(self, x, lengths):
        steps = torch.arange(x.shape[1])
        turned = x.gather(1, (lengths[:, None] - 1 - steps).clamp(min=0)[..., None].expand_as(x))
        at = (lengths - 1)[:, None, None]
        outputs = (self.there(x)[0], self.back(turned)[0])
        last = [y.gather(1, at.expand(-1, 1, y.shape[-1]))[:, 0] for y in outputs]
        return self.head(torch.cat(last, -1))


def test_the_other_direction_of_packed_sequences_is_one_over_rows_turned_round():
    torch.manual_seed(0)
    packs, turned, lengths = BothWays(), TurnedRound(), torch.tensor([4, 2, 3, 1])
    state = {name.replace("recurrence.", "there."): value for name, value in packs.state_dict().items()}
    back = [name for name in state if name.endswith("_reverse")]
    turned.load_state_dict(
        state | {n.replace("there.", "back.").removesuffix("_reverse"): state[n] for n in back}, strict=False
    )
    torch.testing.assert_close(packs(SEQUENCES, lengths), turned(SEQUENCES, lengths))
    with pytest.raises(UnsupportedNetworkError, match=r"over rows turned round within their lengths"):
        analyse(packs, (SEQUENCES, lengths))
    assert units(exact(turned, SEQUENCES, lengths)) == {"there": 6, "back": 6}
