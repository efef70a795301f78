"""What a pruned network is compared with: a plain loop, costs within the limit, cuts that are even."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.baseline import Limit, Plan, dense, magnitude, small_dense
from bayesprune.baseline.loop import Loop
from bayesprune.baseline.widths import by_width, masks_within, narrow_
from bayesprune.selection import RandomNodes
from bayesprune.svi.batches import Batches
from bayesprune.svi.schedule import Schedule

ROWS, SIZE, EPOCHS, SCALE = 96, 16, 4, 0.3
X = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + X[:, 1] > 0).long()
STEPS = ROWS // SIZE * EPOCHS


def gated(network=None, prior=None, likelihood=None, x=X, **settings):
    torch.manual_seed(3)
    network = network or nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2))
    prior = prior or bp.priors.BernoulliGates(bp.priors.Flattening(price=2.0))
    settings = {"weights": bp.priors.NormalWeights(scale=SCALE), **settings}
    return bp.gate(
        network, x[:2], prior=prior, likelihood=likelihood or bp.Categorical(rows=ROWS), **settings
    )


def plan(train=(X, Y), **settings):
    return Plan(train, epochs=EPOCHS, batch_size=SIZE, seed=5, recipe=bp.Recipe(**settings))


class Steps:
    """A loop written by hand: fused Adam, the prior as its decay, the rate constant and then a cosine."""

    def __init__(self, network, recipe, turn):
        self.network, self.turn, self.schedule = network, turn, Schedule(recipe, STEPS)
        self.optimiser = self.adam()
        batches = Batches((X, Y), SIZE, torch.device("cpu"), 5)
        self.batches = [pair for epoch in range(EPOCHS) for pair in batches.epoch(epoch)]

    def adam(self):
        decay = 1 / (ROWS * SCALE**2)
        return torch.optim.Adam(self.network.parameters(), lr=1.0, weight_decay=decay, fused=True)

    def take(self, first, last):
        for step in range(first, last):
            x, y = self.batches[step]
            rate = self.schedule.rate
            if step >= self.turn:
                rate *= 0.5 * (1 + math.cos(math.pi * (step - self.turn) / (STEPS - self.turn)))
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.zero_grad()
            nn.functional.cross_entropy(self.network(x), y).backward()
            self.optimiser.step()
            yield step


def _equal(one, other):
    other = other.state_dict()
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("averaging", [0.0, 0.5])
def test_the_dense_network_is_that_of_a_loop_written_by_hand(averaging):
    model, recipe = gated(unit_noise={"0": 0.3}), bp.Recipe(averaging=averaging)
    network = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2))
    network.load_state_dict(model.network.plain().state_dict())
    by_hand = Steps(network, recipe, turn=round(0.7 * STEPS))
    mean, count = None, 0
    for step in by_hand.take(0, STEPS):
        if step >= STEPS - averaging * (STEPS - by_hand.turn):
            count, values = count + 1, [p.detach().clone() for p in network.parameters()]
            mean = (
                values if mean is None else [m.lerp(v, 1 / count) for m, v in zip(mean, values, strict=True)]
            )
    if mean is not None:
        for parameter, value in zip(network.parameters(), mean, strict=True):
            parameter.data.copy_(value)
    whole = dense(model, plan(averaging=averaging))
    assert _equal(network, whole.network)
    assert (whole.parameters, whole.macs) == (12 * 7 + 2 * 13, 12 * 6 + 2 * 12)


def test_magnitude_is_a_cut_in_the_middle_of_a_loop_written_by_hand():
    model = gated()
    limit = Limit("macs", most=45)  # five units of 8
    network = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2))
    network.load_state_dict(model.network.plain().state_dict())
    by_hand, half = Steps(network, bp.Recipe(), turn=STEPS // 2), STEPS // 2
    list(by_hand.take(0, half))
    keep = network[0].weight.detach().double().norm(dim=1).argsort(descending=True)[:5].sort().values
    moments = [by_hand.optimiser.state[p] for p in network.parameters()]
    small = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    cuts = [lambda t: t[keep], lambda t: t[keep], lambda t: t[:, keep], lambda t: t]
    for parameter, whole, cut in zip(small.parameters(), network.parameters(), cuts, strict=True):
        parameter.data.copy_(cut(whole.detach()))
    by_hand.network = small
    by_hand.optimiser = by_hand.adam()
    for parameter, state, cut in zip(small.parameters(), moments, cuts, strict=True):
        kept = {key: v if key == "step" else cut(v).clone() for key, v in state.items()}
        by_hand.optimiser.state[parameter] = kept
    list(by_hand.take(half, STEPS))
    found = magnitude(model, plan(), limit)
    assert (found.macs, found.parameters) == (40, 47)
    assert _equal(small, found.network)


class Residual(nn.Module):
    """Convolutions, batch norm, a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.outer = nn.Conv2d(8, 10, 3, padding=1), nn.Conv2d(10, 8, 3, padding=1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.outer(self.inner(x).relu())
        return self.head(x.mean((2, 3)))


IMAGES = torch.randn(ROWS, 2, 5, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("what", ["macs", "parameters"])
@pytest.mark.parametrize("share", [0.5, 0.15])
@pytest.mark.parametrize("learn", [small_dense, magnitude])
def test_a_small_network_costs_no_more_and_hardly_less(learn, share, what):
    model = gated(Residual(), x=IMAGES)
    most = int(share * (model.dense_macs if what == "macs" else model.dense_parameters))
    found = learn(model, plan((IMAGES, Y)), Limit(what, most))
    cost, more = (found.macs, found.parameters)[what == "parameters"], bp.count(found.network, IMAGES[:1])
    assert (more.macs, more.parameters) == (found.macs, found.parameters)
    assert isinstance(found.network, Residual)
    assert 0.6 * most <= cost <= most
    widths = found.network.stem.out_channels / 8, found.network.inner.out_channels / 10
    assert abs(widths[0] - widths[1]) <= 1 / 8, "the same share of each"


def test_what_reads_fewer_units_has_larger_first_weights():
    model = gated()
    wide = by_width(model, plan())
    masks = masks_within(wide, RandomNodes(), Limit("macs", 24), seed=0)  # 3 of 12 units
    kept, before = masks["0"], {name: p.detach().clone() for name, p in wide.network.named_parameters()}
    narrow_(wide, masks)
    after = dict(wide.network.named_parameters())
    assert torch.equal(after["0.weight"], before["0.weight"][kept])
    torch.testing.assert_close(after["2.weight"], before["2.weight"][:, kept] * 2)
    assert torch.equal(after["2.bias"], before["2.bias"])


def test_the_model_is_left_alone_and_its_own_noise_is_not():
    model = gated(weights=bp.priors.NormalWeights(scale=SCALE, posterior="normal", masked=True))
    before = copy.deepcopy(model.state_dict())
    noise = torch.get_rng_state()
    whole = dense(model, plan())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert torch.equal(noise, torch.get_rng_state())
    assert _equal(whole.network, dense(gated(), plan()).network), "weights are points"


@pytest.mark.parametrize("learn", [dense, magnitude, small_dense])
def test_numbers_are_learnt_in_their_own_unit(learn):
    y = 500 + 40 * X[:, :1]
    model = gated(
        nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 1)), likelihood=bp.Gaussian(rows=ROWS)
    )
    limit = [] if learn is dense else [Limit("macs", 60)]
    found = learn(model, Plan((X, y), epochs=60, batch_size=SIZE), *limit)
    figures = found.figures((X, y))
    assert figures["test_rmse"] < 12
    assert set(figures) == {"test_rmse", "test_nll", "parameters", "macs", "seconds", "processor_seconds"}


def test_what_cannot_be_had_is_refused():
    model = gated()
    with pytest.raises(bp.errors.SelectionError, match=r"evenly to 7 MACs: one unit .* still makes 8"):
        small_dense(model, plan(), Limit("macs", 7))
    with pytest.raises(bp.errors.SelectionError, match="evenly to 7 MACs"):
        magnitude(model, plan(), Limit("macs", 7))
    with pytest.raises(bp.errors.NothingToGateError):
        small_dense(gated(nn.Sequential(nn.Linear(6, 2))), plan(), Limit("macs", 7))
    model.remove_(torch.arange(len(model.alive)) == 0)
    with pytest.raises(bp.errors.SettingsError, match="1 units were removed"):
        dense(model, plan())
    for wrong in (("flops", 3), ("macs", 0), ("macs", 2.5)):
        with pytest.raises(bp.errors.SettingsError, match="Limit"):
            Limit(*wrong)


def test_a_loss_that_leaves_the_numbers_is_said():
    with pytest.raises(bp.errors.DivergedError, match=f"by step {STEPS}"):
        dense(gated(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))), plan(learning_rate=1e30))


def test_numbers_near_zero_slow_nobody_down(monkeypatch):
    def run(own):
        seen.append(tiny())
        learn(own)

    def tiny():
        return float(torch.full((), 1e-38) * 0.01)

    seen, learn = [], Loop.run_
    monkeypatch.setattr(Loop, "run_", run)
    dense(gated(), plan())
    assert seen == [0.0]
    assert tiny() > 0, "afterwards they are numbers again"


def test_magnitude_in_several_cuts_gets_to_the_same_cost_step_by_step():
    model = gated()
    whole = model.network.macs()
    once = magnitude(model, plan(), Limit("macs", whole // 4))
    often = magnitude(model, plan(), Limit("macs", whole // 4), cuts=4)
    assert once.epoch_macs == (whole, whole, once.macs, once.macs)  # at half of four epochs
    assert often.macs == once.macs and often.epoch_macs[-2:] == (often.macs, often.macs)
    assert whole > often.epoch_macs[0] > often.epoch_macs[1] > often.macs  # cut in each quarter
    masks = masks_within(by_width(model, plan()), bp.selection.Magnitude(), Limit("macs", whole // 4), 5)
    assert often.network[0].out_features == int(masks["0"].sum())


def test_magnitude_cuts_inputs_where_asked_and_most_of_those_that_say_nothing():
    model = gated(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2)))
    rival = magnitude(model, replace(plan(), epochs=40), Limit("macs", 40), cuts=3, inputs=True)
    assert rival.macs <= 40 and rival.network(X).shape == (ROWS, 2)
    whole = magnitude(model, plan(), Limit("macs", 40))
    reads = next(layer for layer in rival.network if isinstance(layer, nn.Linear))
    assert reads.in_features < 6 == whole.network[0].in_features


@pytest.mark.parametrize("cuts", [0, 1.5, True])
def test_cuts_are_counted(cuts):
    with pytest.raises(bp.errors.SettingsError, match="at least 1"):
        magnitude(gated(), plan(), Limit("macs", 40), cuts=cuts)


def test_from_scratch_has_the_shape_that_was_kept_and_weights_of_its_own():
    model, other = gated(), gated(nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2)))
    masks = {"input": torch.tensor([1, 1, 0, 0, 1, 0]) > 0, "0": torch.arange(12) < 5}
    rival = bp.baseline.from_scratch(other, plan(), masks)
    alive = torch.cat([masks[group.name] for group in model.groups])
    model.remove_(~alive)
    assert rival.macs == model.network.macs() == 3 * 5 + 5 * 2
    assert rival.parameters == 3 * 5 + 5 + 5 * 2 + 2
    with pytest.raises(bp.errors.SelectionError, match="has groups"):
        bp.baseline.from_scratch(other, plan(), {"0": masks["0"]})


def test_every_epoch_is_scored_and_that_steers_nothing():
    seen = dense(gated(), replace(plan(averaging=0.5), validation=(X, Y)))
    unseen = dense(gated(), plan(averaging=0.5))
    assert len(seen.scores) == EPOCHS and unseen.scores == ()
    assert seen.scores[-1] == bp.evaluate(seen.network, (X, Y), seen.likelihood).score
    assert len(set(seen.scores)) > 1
    for one, other in zip(seen.network.parameters(), unseen.network.parameters(), strict=True):
        assert torch.equal(one, other)
