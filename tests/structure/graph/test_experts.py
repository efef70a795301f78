"""Mixtures of experts: each row goes to a few of them, and hidden units of all go together."""

import pytest
import torch
from torch import nn

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure import routed_linear
from bayesprune.structure.graph import analyse
from tests.structure.graph.test_rules import exact
from tests.structure.graph.test_rules_of_blocks import units
from tests.structure.plain.test_routed import Routed

SEQUENCES = torch.randn(4, 3, 5)


def test_hidden_units_and_the_stream_around_experts_go():
    assert units(exact(Routed(), SEQUENCES)) == {"stem": 6, "up": 7}


class Looped(Routed):
    """As it may stand in a network of one's own, which no graph can have."""

    def forward(self, x):
        h = self.stem(x).flatten(0, 1)
        chosen, y = self.route(h).argmax(-1), torch.zeros_like(h)
        for k in range(4):
            rows = torch.where(chosen == k)[0]
            hidden = nn.functional.linear(h[rows], self.up[k], self.shift[k]).relu()
            y.index_add_(0, rows, nn.functional.linear(hidden, self.down[k]))
        return self.head((h + y).view(*x.shape[:2], -1).mean(1))


class Remedied(Looped):
    """As its refusal says."""

    def forward(self, x):
        h = self.stem(x).flatten(0, 1)
        chosen = self.route(h).argmax(-1)
        y = routed_linear(routed_linear(h, self.up, self.shift, chosen).relu(), self.down, None, chosen)
        return self.head((h + y).view(*x.shape[:2], -1).mean(1))


def test_a_loop_over_experts_is_refused_and_its_remedy_is_the_same_and_goes():
    looped, remedied = Looped(), Remedied()
    remedied.load_state_dict(looped.state_dict())
    torch.testing.assert_close(remedied(SEQUENCES), looped(SEQUENCES))
    with pytest.raises(UnsupportedNetworkError, match=r"be bp\.structure\.routed_linear"):
        analyse(looped, SEQUENCES)
    assert units(exact(remedied, SEQUENCES)) == {"stem": 6, "up": 7}


class Experts(nn.Module):
    """Marked as those of transformers are, in all their forms, and run as these are by default."""

    def __init__(self, gated, biased, turned):
        super().__init__()
        self.has_gate, self.has_bias, self.is_transposed, self.has_post_expert_norm = (
            gated,
            biased,
            turned,
            True,
        )
        first, width = ("gate_up_proj", 14) if gated else ("up_proj", 7)
        for name, shape in ((first, (4, width, 6)), ("down_proj", (4, 6, 7))):
            weight = torch.zeros(shape)
            self.register_parameter(name, nn.Parameter(weight.mT.contiguous() if turned else weight))
            if biased:
                self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(shape[:2])))
        self.act_fn, self.post_expert_norm = nn.SiLU(), nn.LayerNorm(6)

    def _apply_gate(self, x):
        gate, up = x.chunk(2, -1)
        return self.act_fn(gate) * up

    def linear(self, x, name, k):
        weight = getattr(self, name)[k].mT if self.is_transposed else getattr(self, name)[k]
        return nn.functional.linear(x, weight, getattr(self, f"{name}_bias")[k] if self.has_bias else None)

    def forward(self, states, index, weights):
        y = torch.zeros_like(states)
        for k in index.unique().tolist():
            rows, at = torch.where(index == k)
            if self.has_gate:
                hidden = self._apply_gate(self.linear(states[rows], "gate_up_proj", k))
            else:
                hidden = self.act_fn(self.linear(states[rows], "up_proj", k))
            out = self.post_expert_norm(self.linear(hidden, "down_proj", k))
            y.index_add_(0, rows, out * weights[rows, at, None])
        return y


class Sparse(nn.Module):
    def __init__(self, *kind):
        super().__init__()
        self.stem, self.route, self.head = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(6, 3)
        self.experts = Experts(*kind)

    def forward(self, x):
        h = self.stem(x).flatten(0, 1)
        share, chosen = self.route(h).softmax(-1).topk(2, -1)
        return self.head((h + self.experts(h, chosen, share)).view(*x.shape[:2], -1).mean(1))


@pytest.mark.parametrize("kind", [(True, False, False), (True, True, True), (False, True, False)])
def test_experts_of_transformers_are_followed_in_all_their_forms(kind):
    analysis = exact(Sparse(*kind), SEQUENCES)
    assert sorted(units(analysis).values()) == [6, 7]
    small = analysis.cut({group.name: torch.arange(group.size) % 3 > 0 for group in analysis.groups[:2]})
    assert type(small) is Sparse and "forward" not in vars(small.experts)
