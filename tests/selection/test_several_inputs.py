"""Every rule on a network of two inputs in a dict, and on its twin that is given both as one tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.selection import Fuse, Magnitude, Scored, Subject, path, prune, select
from tests.selection.networks import ROWS, Example, posterior_of
from tests.selection.test_protocol import POSTERIOR, TRAINED
from tests.structure.graph.networks import randomise_

NAMES = [("trained", name) for name in TRAINED] + [("fitted", name) for name in POSTERIOR]


class Twin(nn.Module):
    """One tensor in, one tensor out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(9, 14), nn.Linear(14, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


class TwoInputs(Twin):
    """The same of two tensors, of which one hides columns of the other; a dict out."""

    def forward(self, left, right, there):
        x = torch.cat([left, right], -1).masked_fill(~there, 0.0)
        return {"logits": super().forward(x), "hidden": x}


class Dicts(Example):
    """Its likelihood reads a part."""

    @property
    def likelihood(self):
        return bp.Categorical(rows=1000, output="logits")


@pytest.fixture(scope="module")
def both():
    torch.manual_seed(0)
    twin = randomise_(Twin().double(), 1).eval()
    other = TwoInputs().double().eval()
    other.load_state_dict(twin.state_dict())
    whole, there, y = torch.randn(ROWS, 9).double(), torch.rand(ROWS, 9) < 0.8, torch.arange(ROWS) % 3
    parts = {"left": whole[:, :4], "right": whole[:, 4:], "there": there}
    return Dicts(other, parts, y), Example(twin, whole.masked_fill(~there, 0.0), y)


@pytest.fixture(scope="module")
def subjects(both):
    fitted = [posterior_of(example, weights="normal", inputs=False) for example in both]
    return {
        "trained": [Subject.of(example.network, example.x) for example in both],
        "fitted": [Subject.of(gated, example.x) for gated, example in zip(fitted, both, strict=True)],
    }


@pytest.mark.parametrize(("kind", "name"), NAMES, ids=[" ".join(pair) for pair in NAMES])
@pytest.mark.filterwarnings("ignore::bayesprune.errors.CorrelationWarning")
def test_rules_see_in_a_dict_what_they_see_in_one_tensor(both, subjects, kind, name):
    rules = [(TRAINED if kind == "trained" else POSTERIOR)[name](example) for example in both]
    found = [select(r, s, share=0.6, seed=3) for r, s in zip(rules, subjects[kind], strict=True)]
    assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][g], found[1][g]) for g in found[0])
    if isinstance(rules[0], Scored):
        scores = [r.scores(s, 3) for r, s in zip(rules, subjects[kind], strict=True)]
        for group in scores[0]:
            torch.testing.assert_close(scores[0][group], scores[1][group], rtol=1e-9, atol=1e-9)
    example = both[0]
    candidate = next(iter(path(subjects[kind][0], None, rules[0], [0.6], seed=3)))
    assert type(candidate.network) is TwoInputs
    assert candidate.network(**example.few())["logits"].shape == (2, 3)


def test_what_reads_the_kept_units_is_fused_on_both_alike(both, subjects):
    masks = select(Magnitude(), subjects["trained"][0], share=0.6)
    small = [prune(s, masks, fuse=Fuse(e.x)) for e, s in zip(both, subjects["trained"], strict=True)]
    outputs = small[0](**both[0].x)["logits"], small[1](both[1].x)
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-9)
    plain = prune(both[0].network, masks, both[0].few())
    assert not torch.allclose(outputs[0], plain(**both[0].x)["logits"], atol=1e-3)
