"""Weight norm, w = g v / ‖v‖: rows go with their lengths, and what columns leave of a length goes into g."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import bayesprune as bp
from bayesprune.errors import RemovalError
from bayesprune.structure.graph import analyse
from tests.structure.graph.checks import assert_same, gates_of, run
from tests.structure.graph.networks import randomise_
from tests.structure.graph.test_rules import exact, sizes

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
FORMS = {"parametrization": parametrizations.weight_norm, "hook": nn.utils.weight_norm}
IMAGES = torch.randn(4, 3, 8, 8, dtype=torch.float64)


class Normed(nn.Module):
    def __init__(self, norm, dim):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)
        self.lift, self.head = nn.ConvTranspose2d(6, 5, 2), nn.Linear(5, 3)
        for layer in list(self.children()):
            norm(layer, dim=dim)

    def forward(self, x):
        return self.head(self.lift(self.conv2(self.conv1(x).relu()).tanh()).tanh().mean((2, 3)))


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("form", FORMS)
def test_rows_and_columns_go_and_the_class_stays(form, dim, tmp_path):
    analysis = exact(Normed(FORMS[form], dim), IMAGES)
    assert sorted(sizes(analysis).values()) == [5, 6, 8]
    alive = {group.name: torch.arange(group.size) % 3 > 0 for group in analysis.groups}
    small = analysis.cut(alive)
    assert type(small) is Normed
    assert (small.conv2.in_channels, small.conv2.out_channels) == (5, 4)
    assert (small.lift.in_channels, small.lift.out_channels, small.head.in_features) == (4, 3, 3)
    bp.save(small.eval(), tmp_path, example=IMAGES[:2])
    assert torch.equal(bp.load(tmp_path).eval()(IMAGES), small(IMAGES))


def test_cuts_one_after_the_other_and_one_that_is_taken_back(monkeypatch):
    network = randomise_(Normed(parametrizations.weight_norm, 0).double())
    analysis = analyse(network, IMAGES[:2])
    first, second = (group.name for group in analysis.groups[:2])
    alive = {first: torch.arange(8) % 3 > 0, second: torch.arange(6) < 4}
    masked = run(analysis.gated, (IMAGES,), False, gates_of(alive, torch.float64))
    analysis.cut_({first: alive[first]})
    before = {name: tensor.clone() for name, tensor in analysis.gated.network.state_dict().items()}
    with monkeypatch.context() as patch, pytest.raises(RemovalError, match="nothing was removed"):
        patch.setattr("bayesprune.structure.graph.network.alike", lambda *_, **__: False)
        analysis.cut_({second: alive[second]})
    assert all(torch.equal(before[n], t) for n, t in analysis.gated.network.state_dict().items())
    analysis.cut_({second: alive[second]})
    assert_same(run(analysis.gated, (IMAGES,), False), masked)


class OneLengthForTwo(nn.Module):
    """Lengths that two weights share: they can be those of one of them alone."""

    def __init__(self):
        super().__init__()
        self.first, self.g = nn.Linear(4, 8), nn.Parameter(torch.ones(6, 1))
        self.v1, self.v2, self.head = *(nn.Parameter(torch.ones(6, 8)) for _ in range(2)), nn.Linear(6, 3)

    def forward(self, x):
        x = self.first(x).tanh()
        each = [nn.functional.linear(x, torch._weight_norm(v, self.g, 0)) for v in (self.v1, self.v2)]
        return self.head(each[0].relu() * each[1])


def test_columns_stay_where_lengths_are_shared():
    analysis = exact(OneLengthForTwo(), torch.randn(4, 4))
    assert "the length of a filter is over it" in {frozen.reason for frozen in analysis.frozen}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.recurrence, self.head = nn.Linear(4, 5), nn.LSTM(5, 6), nn.Linear(6, 3)
        for name in ("weight_ih_l0", "weight_hh_l0"):
            nn.utils.weight_norm(self.recurrence, name)

    def forward(self, x):
        return self.head(self.recurrence(self.fc(x).tanh().transpose(0, 1))[0][-1])


def test_recurrences_lose_hidden_units_under_it():
    assert sizes(exact(Recurrent(), torch.randn(4, 3, 4))) == {"fc": 5, "recurrence": 6}
