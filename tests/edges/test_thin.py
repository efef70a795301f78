"""prune_edges: counts, zeros, what is removed with them, and that it is learning and not cutting alone."""

import copy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.edges.thin import _Course, _Loop, _unread
from bayesprune.errors import SelectionError, SettingsError
from bayesprune.selection import MagnitudeEdges, RandomEdges, Subject
from bayesprune.svi.batches import Batches


def rows(count=240, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    return x, (x[:, 0] * x[:, 1] > 0).long()


def gated(x, hidden=16, seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=0.01))
    return bp.gate(
        network, x[:2], prior=prior, likelihood=bp.Categorical(rows=len(x)), initial_inclusion=0.99
    )


@pytest.fixture(scope="module")
def fitted():
    x, y = rows()
    recipe = bp.Recipe(moves=None)
    return bp.fit(gated(x), (x, y), epochs=20, batch_size=32, recipe=recipe, progress=False), (x, y)


def test_as_many_parameters_as_were_asked_for_and_all_others_are_zero(fitted):
    result, train = fitted
    few = bp.prune_edges(result, train, parameters=40, epochs=10, every=5, progress=False)
    assert few.parameters <= 40
    tensors = dict(few.network.named_parameters())
    for name, mask in few.masks.items():
        assert torch.equal(tensors[name] != 0, mask)
    others = sum(p.numel() for n, p in tensors.items() if n not in few.masks)
    assert few.parameters == few.edges + others
    assert few.counts[-1] == 40  # before units that nobody reads were removed
    assert all(a >= b for a, b in zip(few.counts, few.counts[1:], strict=False))


def test_what_ships_is_what_was_learnt(fitted):
    result, train = fitted
    few = bp.prune_edges(result, train, parameters=40, epochs=4, every=5, validation=train, progress=False)
    assert len(few.scores) == 4
    assert bp.evaluate(few.network, train, few.likelihood).score == pytest.approx(few.scores[-1])


def test_the_result_that_is_given_stays_what_it_was(fitted):
    result, train = fitted
    before = copy.deepcopy(result.gated.state_dict())
    bp.prune_edges(result, train, parameters=50, epochs=1, progress=False)
    after = result.gated.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_learning_between_looks_is_worth_more_than_one_cut(fitted):
    result, train = fitted
    few = bp.prune_edges(result, train, parameters=40, epochs=30, every=5, progress=False)
    small = bp.prune(result)
    subject = Subject.of(result)
    masks = bp.selection.select(MagnitudeEdges(), subject, parameters=few.parameters, scope="global")
    cut = subject.zeroed(masks)
    learnt = bp.evaluate(few.network, train, few.likelihood).nll
    whole = bp.evaluate(small, train, result.likelihood).nll
    assert learnt < bp.evaluate(cut, train, result.likelihood).nll
    assert learnt < whole + 0.2


def test_units_that_nobody_reads_are_removed_and_no_output_moves():
    x, _ = rows()
    model = gated(x)
    weight = model.network.get_parameter("2.weight")
    with torch.no_grad():
        weight[:, [3, 7]] = 0.0
    unread = model.by_group(_unread(model))
    (name,) = [group.name for group in model.groups if group.size == 16]
    assert unread[name].nonzero().flatten().tolist() == [3, 7]
    before = model.network(x)
    model.remove_(torch.cat(list(unread.values())))
    assert torch.allclose(model.network(x), before, atol=1e-6)
    assert model.network.get_parameter("2.weight").shape == (2, 14)


def test_a_weight_keeps_an_edge_and_a_network_its_units():
    x, y = rows()
    model = gated(x)
    few = bp.prune_edges(model, (x, y), parameters=20, epochs=3, every=2, progress=False)
    assert few.counts[-1] == 20  # 16 + 2 biases, and an edge in each of two weights
    assert min(few.kept.values()) >= 1
    assert few.network(x).shape == (len(x), 2)


def test_edges_that_went_stay_away_whatever_a_rule_says_later():
    x, y = rows()
    model = gated(x)
    batches, course = Batches((x, y), 32, torch.device("cpu"), 0), _Course(1, 1e-2, 0.5, 1, 1.0, 0)
    loop = _Loop(model, batches, RandomEdges(), 60, course)
    loop._cut_(80)
    first = {name: mask.clone() for name, mask in loop.masks.items()}
    loop.course = replace(course, seed=1)  # another order
    loop._cut_(40)
    assert all(bool((~loop.masks[name] | first[name]).all()) for name in first)
    assert sum(int(mask.sum()) for mask in loop.masks.values()) == 40


def test_the_weights_prior_goes_on_to_count():
    x, y = rows()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    norms = []
    for scale in (0.02, 5.0):
        model = bp.gate(
            copy.deepcopy(network), x[:2], prior=bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0)),
            likelihood=bp.Categorical(rows=len(x)), weights=bp.priors.NormalWeights(scale=scale),
            initial_inclusion=0.99,
        )  # fmt: skip
        few = bp.prune_edges(
            model, (x, y), parameters=60, learning_rate=1e-2, epochs=20, every=5, progress=False
        )
        norms.append(sum(float(p.detach().square().sum()) for p in few.network.parameters()))
    assert norms[0] < 0.5 * norms[1]
    few = bp.prune_edges(
        model,
        (x, y),
        parameters=60,
        weight_scale=0.004,
        learning_rate=1e-2,
        epochs=20,
        every=5,
        progress=False,
    )
    wide = sum(float(p.detach().square().sum()) for p in few.network.parameters())
    assert wide == pytest.approx(norms[0], rel=1e-3)  # 0.004 · 5 = 0.02


def test_the_same_seed_gives_the_same_bits(fitted):
    result, train = fitted
    first, second = (
        bp.prune_edges(result, train, parameters=45, epochs=2, every=3, seed=4, progress=False)
        for _ in range(2)
    )
    pairs = zip(first.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_teacher_is_listened_to(fitted):
    result, train = fitted
    taught = bp.Distilled(result.likelihood.plain, lambda x: torch.full((len(x), 2), -3.0), weight=1.0)
    few = bp.prune_edges(
        result,
        train,
        parameters=50,
        likelihood=taught,
        learning_rate=1e-2,
        batch_size=16,
        epochs=30,
        progress=False,
    )
    odds = few.network(train[0]).detach()
    assert float((odds[:, 0] - odds[:, 1]).abs().mean()) < 0.2  # it says nothing, as its teacher


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({}, SelectionError, "give one of them"),
        ({"share": 0.5, "parameters": 30}, SelectionError, "give one of them"),
        ({"share": 1.5}, SelectionError, r"in \(0, 1\]"),
        ({"parameters": 2}, SelectionError, "one edge in each weight"),
        ({"parameters": 10**6}, SelectionError, "one edge in each weight"),
        ({"share": 0.5, "rule": bp.selection.Magnitude()}, SelectionError, "scores single weights"),
        ({"share": 0.5, "epochs": 0}, SettingsError, "epochs=0"),
        ({"share": 0.5, "until": 1.0}, SettingsError, "until=1.0"),
        ({"share": 0.5, "every": True}, SettingsError, "every=True"),
        ({"share": 0.5, "learning_rate": -1.0}, SettingsError, "learning_rate=-1.0"),
        ({"share": 0.5, "weight_scale": 0}, SettingsError, "weight_scale=0"),
        ({"share": 0.5, "seed": -1}, SettingsError, "seed=-1"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fitted, settings, error, words):
    result, train = fitted
    with pytest.raises(error, match=words):
        bp.prune_edges(result, train, **settings, progress=False)


def test_convolutions_lose_edges_and_channels_nobody_reads():
    torch.manual_seed(0)
    x, y = torch.randn(64, 1, 8, 8), torch.randint(2, (64,))
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 2),
    )  # fmt: skip
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=0.1))
    model = bp.gate(network, x[:2], prior=prior, likelihood=bp.Categorical(rows=64), initial_inclusion=0.99)
    few = bp.prune_edges(model, (x, y), parameters=90, epochs=6, batch_size=16, every=2, progress=False)
    assert few.parameters <= 90
    assert bp.evaluate(few.network, (x, y), few.likelihood).nll < 2


@pytest.mark.parametrize(("epochs", "batch_size", "until"), [(1, 240, 0.5), (2, 240, 0.99), (1, 60, 0.999)])
def test_the_last_edges_go_however_few_the_steps_are(fitted, epochs, batch_size, until):
    result, train = fitted
    few = bp.prune_edges(
        result, train, parameters=40, epochs=epochs, batch_size=batch_size, until=until, progress=False
    )
    assert few.counts[-1] == 40


@dataclass(frozen=True)
class Unsure(MagnitudeEdges):
    """A rule that does not know."""

    def edge_scores(self, subject, seed=0):
        return {name: scores * float("nan") for name, scores in super().edge_scores(subject, seed).items()}


def test_scores_that_are_none_and_plain_networks_are_refused(fitted):
    result, train = fitted
    with pytest.raises(SelectionError, match="finite number for every edge"):
        bp.prune_edges(result, train, parameters=40, rule=Unsure(), progress=False)
    with pytest.raises(SettingsError, match="prune_edges takes what fit returned"):
        bp.prune_edges(bp.prune(result), train, parameters=40, progress=False)


def test_it_does_not_learn_under_autocast_or_without_gradients(fitted):
    result, train = fitted
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(SettingsError, match="prune_edges"):
        bp.prune_edges(result, train, parameters=40, progress=False)
    with torch.no_grad(), pytest.raises(SettingsError, match="prune_edges"):
        bp.prune_edges(result, train, parameters=40, progress=False)
