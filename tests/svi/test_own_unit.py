"""Regression in the targets' own unit: what is learnt does not hang on it, and what ships speaks it."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import LikelihoodError, UnitWarning
from bayesprune.structure.frame import find_head
from bayesprune.svi import Engine
from bayesprune.svi.batches import Batches
from bayesprune.svi.own_unit import _warn_of, start_in_own_unit_

ROWS, NOISE = 160, 0.2
FAST = bp.Recipe(
    gates=bp.GateSteps(learning_rate=0.3, momentum=0.8, every=1),
    shrink=bp.Shrink(every=5),
    learning_rate=1e-2,
    compact_learning_rate=1e-2,
)


def rows(unit=1.0, location=0.0):
    """y = unit · (x₀ − x₁ + noise + location), standard deviation about 1.4 units; six inputs say nothing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 8, generator=generator)
    y = x[:, 0] - x[:, 1] + NOISE * torch.randn(ROWS, generator=generator) + location
    return x, unit * y


class Residual(nn.Module):
    """No row of layers."""

    def __init__(self):
        super().__init__()
        self.first, self.inside, self.last = nn.Linear(8, 10), nn.Linear(10, 10), nn.Linear(10, 1)

    def forward(self, x):
        x = self.first(x).tanh()
        return self.last(x + self.inside(x).tanh())


def chain():
    return nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 1))


def gated_of(network=chain, likelihood=None, rows_of=rows):
    torch.manual_seed(0)
    prior = priors.BernoulliGates(priors.Flattening(4.0))
    likelihood = likelihood or bp.Gaussian(rows=ROWS)
    return bp.gate(network(), rows_of()[0][:1], prior=prior, likelihood=likelihood)


def fit(train, network=chain, likelihood=None, epochs=40, **settings):
    gated = gated_of(network, likelihood)
    return bp.fit(gated, train, epochs=epochs, batch_size=40, recipe=FAST, progress=False, **settings)


@pytest.mark.parametrize("network", [chain, Residual])
def test_results_do_not_hang_on_the_unit(network):
    usual = fit(rows(), network)
    assert sum(usual.architecture) < sum(g.size for g in usual.gated.groups), "something is pruned"
    quality = bp.evaluate(usual, rows())
    assert quality.score < 0.4
    for unit, location in ((1e-3, 0.0), (1e4, 3.0)):
        train = rows(unit, location)
        result = fit(train, network)
        assert torch.equal(result.gated.alive, usual.gated.alive), unit
        here = bp.evaluate(bp.prune(result), train, result.likelihood)
        assert here.score / unit == pytest.approx(quality.score, rel=0.02)
        assert here.nll - math.log(unit) == pytest.approx(quality.nll, abs=0.02)
        noise = result.likelihood.learnt()["noise_scale"] / unit
        assert noise == pytest.approx(usual.likelihood.learnt()["noise_scale"], rel=0.02)


@pytest.mark.parametrize("network", [chain, Residual])
def test_what_ships_predicts_in_the_targets_unit(network, tmp_path):
    x, y = rows(1e4, location=2.0)
    result = fit((x, y), network, epochs=4)
    small = bp.prune(result)
    ours, shipped = result.gated.network(x), small(x)
    torch.testing.assert_close(shipped, ours, rtol=1e-5, atol=1e-5 * 1e4)
    assert shipped.mean().item() == pytest.approx(2e4, rel=0.5)
    names = {name for name, _ in small.named_parameters()} | {name for name, _ in small.named_buffers()}
    assert names == set(network().state_dict()) or names < set(network().state_dict())
    bp.save(small, tmp_path / "small", example=x[:2])
    assert torch.equal(bp.load(tmp_path / "small")(x), shipped)


def test_the_scale_is_that_of_the_residuals():
    train = rows(100.0)
    result = fit(train)
    residual = (bp.prune(result)(train[0])[:, 0] - train[1]).square().mean().sqrt().item()
    assert result.likelihood.learnt()["noise_scale"] == pytest.approx(residual, rel=0.1)


def test_a_step_puts_the_scale_where_the_expected_log_likelihood_is_largest():
    torch.manual_seed(0)
    x, y = torch.randn(30, 8), torch.randn(30, 2)
    network = nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 2))
    gated = gated_of(lambda: network, bp.Gaussian(rows=30, scale=3.0)).eval()
    gated.log_odds.data.fill_(30.0)  # no gate is drawn shut
    engine = Engine(gated, bp.Recipe(learning_rate=1e-9))
    engine.step(engine.init(), (x, y))
    exact = (network(x) - y).square().mean().sqrt().item()
    assert gated.likelihood.learnt()["noise_scale"] == pytest.approx(exact, rel=1e-4)


def test_a_scale_does_not_vanish_where_a_network_interpolates():
    likelihood = bp.Gaussian(rows=4)
    y = torch.tensor([1.0, 2.0, 3.0, 4.0])
    likelihood.start_(y.unsqueeze(1), y, y)
    likelihood.nll(y.unsqueeze(1), y).mean().backward()
    likelihood.follow_(y, window=10)
    assert likelihood.learnt()["noise_scale"] == pytest.approx(1e-3 * y.std(correction=0).item(), rel=1e-4)


@pytest.mark.parametrize("network", [chain, Residual])
def test_a_trained_network_goes_on_saying_what_it_says(network):
    unit = 1e4
    x, y = rows(unit)
    first = bp.prune(fit((x, y), network, epochs=20))
    before = first(x).detach()
    again = bp.fit(
        gated_of(lambda: first), (x, y), epochs=1, batch_size=40, progress=False,
        recipe=bp.Recipe(learning_rate=1e-9, compact_learning_rate=1e-9),
    )  # fmt: skip
    torch.testing.assert_close(bp.prune(again)(x).detach(), before, rtol=1e-4, atol=1e-4 * unit)


def test_a_frozen_last_layer_is_left_alone():
    def frozen():
        network = chain()
        network[2].requires_grad_(False)
        return network

    result = fit(rows(), frozen, epochs=1)
    assert result.gated.network.frame is None
    assert torch.equal(bp.prune(result)[2].bias, gated_of(frozen).network.get_parameter("2.bias"))


def test_a_known_scale_leaves_the_model_as_it_is_written():
    known = bp.Gaussian(rows=ROWS, scale=0.2, learn_scale=False)
    assert fit(rows(), likelihood=known, epochs=1).gated.network.frame is None
    asked = bp.Gaussian(rows=ROWS, scale=0.2, learn_scale=False, standardise=True)
    assert fit(rows(), likelihood=asked, epochs=1).gated.network.frame is not None


ENDS = {
    "softplus": nn.Softplus(),
    "dropout": nn.Dropout(0.5),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_network_without_a_last_layer_of_its_own_is_said(end):
    def network():
        return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1), ENDS[end])

    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitWarning)
        fit(rows(), network, epochs=1)
    with pytest.warns(UnitWarning, match=r"Gaussian.*not linear in a last layer.*Standardise the targets"):
        fit(rows(1e4), network, epochs=1)


def test_a_last_layer_without_bias_takes_the_unit_and_no_location():
    def network():
        return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1, bias=False))

    result = fit(rows(1e4), network, epochs=20)
    assert bp.evaluate(result, rows(1e4)).score < 0.6e4
    with pytest.warns(UnitWarning, match="means up to"):
        fit(rows(1.0, location=500.0), network, epochs=1)


def test_likelihoods_of_ones_own_are_told_of_a_unit():
    import pyro.distributions as dist

    own = bp.Own(rows=ROWS, distribution=lambda outputs: dist.StudentT(4.0, outputs[..., 0], 1.0))
    with pytest.warns(UnitWarning, match=r"Own: the targets have standard deviation 1\.\d+e\+04"):
        fit(rows(1e4), likelihood=own, epochs=1)


@pytest.mark.parametrize("unit", [0.0, 1e-20, 1e20])
def test_targets_without_a_scale_that_could_be_learnt_are_refused(unit):
    """All alike, or of squares that are no numbers: a ValueError of PyTorch's before."""
    x, y = rows(unit, location=2.0)
    what = r"all targets are alike \(0\.1 " if unit == 0 else r"deviation \d\.\d+e[-+]\d\d and go up to"
    with pytest.raises(LikelihoodError, match=f"Gaussian: .*{what}"):
        fit((x, y if unit else torch.full_like(y, 0.1)), epochs=1)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_targets_of_any_size_that_has_squares_are_learnt(unit):
    assert bp.evaluate(fit(rows(unit)), rows(unit)).score < 0.4 * unit


def test_constant_targets_are_learnt_where_the_noise_is_known():
    x, y = rows()
    known = bp.Gaussian(rows=ROWS, scale=0.5, learn_scale=False)
    result = fit((x, torch.ones_like(y)), likelihood=known, epochs=3)
    assert result.history[-1].nll < result.history[0].nll


def test_columns_in_units_far_from_each_other_are_told():
    def network():
        return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))

    x, y = rows()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitWarning)
        fit((x, torch.stack([y, 5 * y], 1)), network, epochs=1)
        fit((x, torch.stack([y, torch.ones_like(y)], 1)), network, epochs=1)
    with pytest.warns(UnitWarning, match=r"columns run from 1\.\d+ to 1\.\d+e\+03.*Standardise each column"):
        fit((x, torch.stack([y, 1e3 * y], 1)), network, epochs=1)


def test_one_column_that_is_far_away_is_told_whatever_the_others_are():
    _, y = rows()
    near = (y - y.mean()) / y.std()
    given = bp.Gaussian(rows=ROWS, scale=0.5, learn_scale=False)
    for columns, told in (
        ([near, near], False),
        ([near + 200, near - 200], True),
        ([near, 150 * near], True),
    ):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UnitWarning)
            _warn_of(given, torch.stack(columns, 1), asked=False)
        assert bool(said) == told
        assert all("or take Gaussian(rows), which does it by itself" in str(w.message) for w in said)
    with pytest.warns(UnitWarning, match="not linear in a last layer.*or end the network in a Linear layer"):
        _warn_of(given, torch.stack([near, near + 200], 1), asked=True)


def test_large_counts_start_from_their_mean():
    x, y = rows()
    counts = torch.poisson(1e5 * (0.1 * y).exp(), generator=torch.Generator().manual_seed(0))
    result = fit((x, counts), likelihood=bp.Poisson(rows=ROWS), epochs=20)
    small = bp.prune(result)
    assert (small(x)[:, 0].exp() / counts).log().abs().mean() < 0.15
    torch.testing.assert_close(small(x), result.gated.network(x), rtol=1e-5, atol=1e-5)


def test_a_loader_is_seen_once_and_left_as_it_was():
    x, y = rows(1e4)
    data = torch.utils.data.TensorDataset(x, y)
    for generator in (None, torch.Generator().manual_seed(3)):
        loader = torch.utils.data.DataLoader(data, batch_size=40, shuffle=True, generator=generator)
        result = bp.fit(gated_of(), loader, epochs=20, recipe=FAST, progress=False)
        assert float(result.gated.network._frame_unit) == pytest.approx(y.std(correction=0).item(), rel=1e-5)
        assert bp.evaluate(result, (x, y)).score < 0.5e4


@pytest.mark.parametrize("own", [True, False])
def test_looking_at_a_loader_leaves_all_randomness_as_it_was(own):
    data = torch.utils.data.TensorDataset(*rows(1e4))
    generator = torch.Generator().manual_seed(3) if own else None
    loader = torch.utils.data.DataLoader(data, batch_size=40, shuffle=True, generator=generator)
    gated, batches = gated_of(), Batches(loader, None, torch.device("cpu"), 0)
    before = [g.get_state() for g in (torch.default_generator, *([generator] if own else []))]
    start_in_own_unit_(gated, batches)
    after = [g.get_state() for g in (torch.default_generator, *([generator] if own else []))]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_batches_of_one_row_are_looked_at_together():
    """Of one row it cannot be told whether outputs are linear in the last layer."""
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows(1e4)), batch_size=1)
    gated = gated_of()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitWarning)
        start_in_own_unit_(gated, Batches(loader, None, torch.device("cpu"), 0))
    assert float(gated.network._frame_unit) == pytest.approx(rows(1e4)[1].std(correction=0).item(), rel=1e-5)


def test_targets_of_a_stream_are_read_as_far_as_it_was_said_to_go():
    class Long:
        read = 0

        def __iter__(self):
            x, y = rows(1e4)
            for start in itertools.cycle(range(0, ROWS, 40)):
                self.read += 40
                assert self.read <= 4 * ROWS, "read on"
                yield x[start : start + 40], y[start : start + 40]

    stream = Long()
    start_in_own_unit_(gated_of(), Batches(stream, None, torch.device("cpu"), 0, rows=ROWS))
    assert stream.read <= 2 * ROWS + 80


def test_a_second_fit_keeps_the_unit_of_the_first():
    first = fit(rows(1e4), epochs=2)
    second = bp.fit(first.gated, rows(3e4), epochs=2, batch_size=40, recipe=FAST, progress=False)
    assert second.gated.network._frame_unit == first.gated.network._frame_unit


def test_targets_without_a_unit_are_left_alone():
    """Classes are no amounts, and counts of a usual size need no word, zeros among them."""
    import pyro.distributions as dist

    x, y = rows()
    wide = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 90))
    classes = bp.Own(rows=ROWS, distribution=lambda outputs: dist.Categorical(logits=outputs))
    counts = torch.poisson((0.5 * y).exp(), generator=torch.Generator().manual_seed(0))
    assert (counts == 0).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitWarning)
        fit((x, (torch.arange(ROWS) % 90)), network=lambda: wide, likelihood=classes, epochs=1)
        fit((x, counts), likelihood=bp.Poisson(rows=ROWS), epochs=1)


def test_counts_are_told_of_by_the_logarithm_of_their_mean():
    """Where no last layer takes them up; single ones may be 0."""

    def network():
        return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1), nn.Dropout(0.1))

    x, y = rows()
    counts = torch.poisson((0.5 * y).exp(), generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitWarning)
        fit((x, counts), network, bp.Poisson(rows=ROWS), epochs=1)
    with pytest.warns(UnitWarning, match=r"Poisson: .* means up to 2\d"):
        fit((x, counts * 1e10), network, bp.Poisson(rows=ROWS), epochs=1)


def test_targets_that_differ_by_rounding_alone_are_alike():
    x, _ = rows()
    y = torch.full((ROWS,), 1 / 3, dtype=torch.float64)
    y[::2] += 1e-16
    assert y.std() > 0
    with pytest.raises(LikelihoodError, match="all targets are alike"):
        fit((x, y), epochs=1)


def test_a_run_goes_on_bit_equal_in_its_own_unit(tmp_path):
    class Stop(Exception):
        pass

    def stop(epoch):
        if epoch.epoch == 7:
            raise Stop

    whole = fit(rows(1e4), epochs=10)
    with pytest.raises(Stop):
        fit(rows(1e4), epochs=10, checkpoint=tmp_path, on_epoch=stop)
    resumed = fit(rows(1e4), epochs=10, checkpoint=tmp_path, resume=True)
    assert resumed.gated.state_dict().keys() == whole.gated.state_dict().keys()
    for name, value in whole.gated.state_dict().items():
        assert torch.equal(value, resumed.gated.state_dict()[name]), name


def test_evidence_does_not_hang_on_the_unit():
    tables = [fit(rows(unit)).evidence(rows(unit), units=3) for unit in (1.0, 1e4)]
    gains = [torch.from_numpy(table.exact[~np.isnan(table.exact)]) for table in tables]
    assert len(gains[0]) == 3
    torch.testing.assert_close(gains[0], gains[1], rtol=0.02, atol=0.05)


def test_the_last_layer_is_found_where_the_graph_hides_it():
    assert find_head(Residual(), torch.randn(4, 8)).weight == "last.weight"

    class Two(Residual):
        def forward(self, x):
            return super().forward(x) + x[:, :1]

    assert find_head(Two(), torch.randn(4, 8)) is None
