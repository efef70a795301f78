"""Trained weights first: gates start open, sections stay, and gates may move alone before weights do."""

import itertools
import warnings

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import ClockWarning, EmptyGroupWarning, SettingsError
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.sections import exact_gains, unpaid
from tests.svi.fits import FAST, same

ROWS = 96
QUICK = {k: v for k, v in FAST.items() if k not in ("warmup", "ramp", "decide")}


class Residual(nn.Module):
    """One section beside a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Linear(4, 10), nn.BatchNorm1d(10)
        self.inner, self.outer = nn.Linear(10, 6), nn.Linear(6, 10)
        self.head = nn.Linear(10, 2)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head(x + self.outer(self.inner(x).relu()))


def rows():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(ROWS, 4, generator=generator)
    return x, (x[:, 0] * x[:, 1] > 0).long()


def learnt(network, steps=150):
    """Full batches of Adam."""
    x, y = rows()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x.to(next(network.parameters()).dtype)), y).backward()
        optimiser.step()
    return network


def residual(prior, **settings):
    torch.manual_seed(1)
    likelihood = bp.Categorical(rows=ROWS)
    return bp.gate(learnt(Residual()), rows()[0][:2], prior=prior, likelihood=likelihood, **settings)


def fitted(gated, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        warnings.simplefilter("ignore", ClockWarning)
        settings = {"epochs": 12, "batch_size": 16, "progress": False, **settings}
        return bp.fit(gated, rows(), **settings)


# ---- the recipe


def test_what_is_left_out_is_that_of_trained_weights_and_what_is_given_stays():
    plain, trained = bp.Recipe(), bp.Recipe.trained()
    assert trained.start == "trained" and trained.warmup == 0.0 and plain.warmup > 0
    assert bp.Recipe.trained(warmup=0.1).warmup == 0.1
    assert plain.begun("trained") == trained and trained.begun("trained") is trained
    assert bp.Recipe(learning_rate=0.1, ramp=0.1).begun("trained") == bp.Recipe.trained(
        learning_rate=0.1, ramp=0.1
    )
    assert plain.begun(None) is plain and trained.begun("scratch").start == "scratch"


def test_alone_gates_have_their_share_and_what_is_left_is_fine_tuning():
    recipe = bp.Recipe.trained(frozen=0.3)
    assert (recipe.frozen, recipe.ramp, recipe.decide) == (0.3, 0.15, 0.3)
    assert bp.Recipe.trained(frozen=0.3, decide=0.5).decide == 0.5
    assert bp.Recipe(frozen=0.2).begun("trained") == bp.Recipe.trained(frozen=0.2)
    assert Schedule(recipe, 100).frozen == 30


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: bp.Recipe(start="pretrained"), r"start='pretrained' must be 'scratch', or 'trained'"),
        (lambda: bp.Recipe(frozen=0.8), r"frozen=0.8 must lie in \[0, decide=0.7\]"),
        (lambda: bp.Recipe(frozen=-0.1), r"frozen=-0.1 must lie in"),
        (lambda: bp.Recipe(frozen="half"), r"frozen='half' must be a number"),
        (lambda: bp.Recipe.trained(frozen="half"), r"frozen='half' must be a number"),
        (lambda: bp.Recipe.trained(warm=0.1), r"no setting 'warm': it takes those of Recipe, .*warmup"),
        (lambda: bp.Recipe().begun("warm"), r"start='warm' must be 'scratch', 'trained', or left out"),
        (lambda: fitted(residual(flat(1.0)), start=True), r"start=True must be 'scratch', 'trained'"),
        (
            lambda: bp.Training(residual(flat(1.0)), steps=9, start="warm"),
            r"start='warm' must be 'scratch', 'trained'",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(make, said):
    with pytest.raises(SettingsError, match=said):
        make()


# ---- gates that start open, and sections


def flat(price):
    return priors.BernoulliGates(priors.Flattening(price))


def test_gates_start_open_but_none_is_shut_further():
    gated = residual(flat(1.0), initial_inclusion={"stem": 0.999, "*": 0.5})
    training = bp.Training(gated, steps=40, start="trained")
    probs = gated.by_group(training.gated.inclusion_prob())
    assert torch.allclose(probs["stem"], torch.tensor(0.999)) and (probs["inner"] >= 0.949).all()
    assert bool((probs["layers"] == 1).all())


def section_at(price, inner=0.01, **settings):
    prior = priors.BernoulliGates(priors.Flattening({"layers": price, "*": inner}))
    return fitted(residual(prior), **settings).gated.kept()["layers"]


def plain_gain(gated):
    """(rows,), more nats of the user's own network without its section."""
    network, (x, y) = gated.network.network.eval(), rows()
    with torch.no_grad():
        h = network.norm(network.stem(x)).relu()
        outputs = [network.head(h), network.head(h + network.outer(network.inner(h).relu()))]
        without, whole = (nn.functional.cross_entropy(o, y, reduction="none") for o in outputs)
    return without - whole


def test_a_section_goes_where_its_exact_gain_is_below_its_price_and_not_by_its_slope():
    gain = ROWS * float(plain_gain(residual(flat(1.0))).mean())
    assert section_at(0.7 * gain, recipe=bp.Recipe(**FAST)) == 0  # the slope at a gate that is nearly open
    assert section_at(0.7 * gain, recipe=bp.Recipe(**QUICK), start="trained") == 1
    assert section_at(20 * gain, recipe=bp.Recipe(**QUICK), start="trained") == 0


def test_the_gain_is_that_with_and_without_the_section():
    gated = residual(flat(1.0)).train()
    statistics = {n: b.clone() for n, b in gated.named_buffers()}
    gains, more = exact_gains(gated, rows(), gated.alive), plain_gain(gated)
    expected = ROWS * float(more.mean() + 2 * more.std() / ROWS**0.5)
    assert gains[-1].item() == pytest.approx(expected, rel=1e-4) and not bool(gains[:-1].any())
    assert gated.training and all(torch.equal(b, statistics[n]) for n, b in gated.named_buffers())


class Two(nn.Module):
    """Two sections, one on top of the other."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.one(x).tanh()
        return self.head(x + self.two(x).tanh())


def test_a_section_is_asked_anew_once_another_is_gone():
    torch.manual_seed(0)
    gated = bp.gate(learnt(Two()), rows()[0][:2], prior=flat(1.0), likelihood=bp.Categorical(rows=ROWS))
    assert gated.groups[-1].size == 2
    without_the_first = gated.alive.clone()
    without_the_first[-2] = False
    alone, later = (float(exact_gains(gated, rows(), o)[-1]) for o in (gated.alive, without_the_first))
    prices = torch.full((len(gated.alive),), -1e9).double()
    prices[-2:] = torch.tensor([1e9, (alone + later) / 2])
    gone = unpaid(gated, lambda open_units: exact_gains(gated, rows(), open_units), prices)
    assert bool(gone[-2]) and bool(gone[-1]) == (later < alone) and not bool(gone[:-2].any())


@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning")  # units are coarse
def test_a_budget_is_met_with_the_section_and_without_where_it_cannot_be():
    roomy = fitted(residual(bp.Budget(macs=0.5)), start="trained")
    assert roomy.gated.kept()["layers"] == 1 and roomy.history[-1].macs_percent <= 50
    tight = fitted(residual(bp.Budget(macs=0.5), exclude=("inner", "stem")), start="trained")
    assert tight.gated.kept()["layers"] == 0 and tight.history[-1].macs_percent <= 50


def test_statistics_are_those_of_the_last_weights_over_all_rows():
    result = fitted(residual(flat(1.0)), start="trained")
    network, before = result.gated.network, {}
    for name, value in network.named_buffers():
        before[name] = value.clone()
    batches = bp.svi.batches.Batches(rows(), 16, torch.device("cpu"), 0)
    network.eval().renormalise_(x for x, _ in batches.epoch(0))
    for name, value in network.named_buffers():
        if "running" in name:
            torch.testing.assert_close(value, before[name])


# ---- gates alone


@pytest.mark.parametrize("optimizer", [None, lambda ps: torch.optim.SGD(ps, 0.05, momentum=0.9)])
def test_weights_stand_still_while_gates_move_and_learn_afterwards(optimizer):
    gated = residual(flat(2.0))
    gated.network.get_parameter("head.bias").requires_grad_(False)
    before = {n: p.clone() for n, p in gated.network.named_parameters()}
    gates = bp.GateSteps(
        learning_rate=0.2, momentum=0.5, clip=1.0, every=2
    )  # some steps learn nothing at all
    recipe = bp.Recipe.trained(frozen=0.5, gates=gates, shrink=bp.Shrink(every=1000))
    training = bp.Training(gated, steps=20, recipe=recipe, optimizer=optimizer, start="trained")
    first, (x, y) = gated.log_odds.detach().clone(), rows()
    for step in range(20):
        training.loss((x, y)).backward()
        training.step()
        still = all(torch.equal(p, before[n]) for n, p in gated.network.named_parameters())
        if step < 10:
            assert still and not torch.equal(gated.log_odds, first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClockWarning)
        training.finish()
    moved = {n for n, p in gated.network.named_parameters() if not torch.equal(p, before[n].reshape_as(p))}
    assert "head.bias" not in moved and "head.weight" in moved
    assert all(p.requires_grad == (n != "head.bias") for n, p in gated.network.named_parameters())


def test_a_fit_that_stops_while_weights_stand_still_goes_on_bit_equal(tmp_path):
    recipe = bp.Recipe.trained(**QUICK, frozen=0.5)

    def stop(epoch):
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    whole = fitted(residual(flat(2.0)), recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        fitted(residual(flat(2.0)), recipe=recipe, checkpoint=tmp_path, on_epoch=stop)
    same(whole, fitted(residual(flat(2.0)), recipe=recipe, checkpoint=tmp_path, resume=True))


def test_a_scaler_has_nothing_to_look_at():
    training = bp.Training(residual(flat(1.0)), steps=20, recipe=bp.Recipe.trained(frozen=0.5))
    training.loss(rows()).backward()
    with pytest.raises(SettingsError, match=r"frozen=0.5: weights stand still in step 1.*bfloat16"):
        training.step(torch.amp.GradScaler("cpu"))


@pytest.mark.parametrize(
    ("price", "estimator", "beyond"),
    [(2.0, "enumeration", 1e-9), (4.0, "enumeration", 1e-9), (2.0, "curved", 0.2)],  # nats
)
def test_under_fixed_weights_the_mask_is_the_best_of_all(price, estimator, beyond):
    """With fixed weights and flattening gates −ELBO is multilinear: its minimum is the best of 2⁸ masks."""
    torch.manual_seed(0)
    network = learnt(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double())
    x, y = rows()[0].double(), rows()[1]
    gated = bp.gate(network, x[:2], prior=flat(price), likelihood=bp.Categorical(rows=ROWS))
    nats = {}
    for mask in itertools.product((0.0, 1.0), repeat=8):
        gates = dict(zip(("input", "0"), torch.tensor(mask).double().split([4, 4]), strict=True))
        with torch.no_grad():
            loss = nn.functional.cross_entropy(gated.network(x, gates), y, reduction="sum")
        nats[mask] = float(loss) + price * sum(mask)
    best = min(nats, key=nats.__getitem__)
    recipe = bp.Recipe.trained(frozen=1.0, estimator=estimator, shrink=bp.Shrink(every=100_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        result = bp.fit(gated, (x, y), epochs=300, batch_size=ROWS, recipe=recipe, progress=False)
    found = tuple(result.gated.alive.double().tolist())
    assert nats[found] == pytest.approx(nats[best], abs=beyond), (found, best)
    assert 0 < sum(found) < 8
