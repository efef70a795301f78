"""fit(): it shrinks for real, guards against empty layers, and says what is wrong."""

import copy
import io
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import (
    DataError,
    DivergedError,
    EmptyGroupWarning,
    LikelihoodError,
    SettingsError,
)
from bayesprune.svi import Engine
from bayesprune.svi.batches import Batches
from bayesprune.svi.progress import _Stderr
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.settle import record
from bayesprune.svi.training import Training
from tests.svi.fits import EPOCHS, FAST, ROWS, data, fit, gated_for, network, same


def test_fit_shrinks_physically_and_leaves_the_argument_alone():
    gated = gated_for()
    before = copy.deepcopy(gated.state_dict())
    result = fit(gated)
    assert all(torch.equal(v, before[k]) for k, v in gated.state_dict().items())
    kept = result.gated.kept()
    assert sum(kept.values()) < 4 + 16 + 8
    assert result.gated.network.get_submodule("0").weight.shape[0] == kept["0"]
    assert result.gated.network.get_submodule("5").weight.shape == (kept["5"], kept["4"])
    assert result.undecided == 0 and result.architecture == list(kept.values())
    assert 1 <= result.decided_at <= EPOCHS


def test_pruned_network_is_the_masked_one():
    result = fit()
    small = bp.prune(result)
    x = data()[0]
    probs = result.gated.by_group(result.gated.inclusion_prob())
    masked = result.gated.eval().outputs(x, {name: (p > 0.5).float() for name, p in probs.items()})
    torch.testing.assert_close(small(x), masked, rtol=1e-5, atol=1e-5)
    assert type(small) is nn.Sequential and not small.training
    cost, dense = bp.count(small, x), bp.count(network(), x)
    assert result.history[-1].parameters_percent == pytest.approx(100 * cost.parameters / dense.parameters)
    assert result.history[-1].macs_percent == pytest.approx(100 * cost.macs / dense.macs)


@pytest.mark.parametrize("decide", [0.6, 1.0], ids=["early", "at the very end"])
def test_last_record_is_that_of_the_result(decide):
    result = fit(recipe=bp.Recipe(**{**FAST, "decide": decide}))
    last, gated = result.history[-1], result.gated
    assert last.kept == gated.kept() and last.undecided == 0
    assert last.parameters_percent == pytest.approx(
        100 * gated.network.parameter_count() / gated.dense_parameters
    )
    assert last.macs_percent == pytest.approx(100 * gated.network.macs() / gated.dense_macs)
    assert torch.equal(last.inclusion, gated.inclusion_prob().detach())
    assert result.decided_at is None or result.decided_at <= EPOCHS


def test_every_removal_of_a_real_fit_leaves_the_masked_outputs(monkeypatch):
    removals, remove_ = [], bp.GatedModel.remove_

    def watched(self, dead, optimiser=None):
        x = data()[0]
        gates = {name: 1.0 - part.float() for name, part in self.by_group(dead).items()}
        for training in (False, True):
            masked, cut = copy.deepcopy(self), copy.deepcopy(self)
            for model in (masked, cut):
                model.train(training)
                model.network.get_submodule("8").p = 0.0  # dropout draws for whatever is there
            remove_(cut, dead)
            expected, actual = masked.outputs(x, gates), cut.outputs(x, gates)
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
        removals.append(int(dead.sum()))
        remove_(self, dead, optimiser)

    monkeypatch.setattr(bp.GatedModel, "remove_", watched)
    fit()
    assert len(removals) >= 2 and sum(removals) > 3


def test_the_average_of_weights_is_their_mean():
    layer = nn.Linear(2, 1)
    run = SimpleNamespace(averaged=0, average={}, _learnt=None, gated=SimpleNamespace(network=layer))
    seen = []
    for step in range(5):
        layer.weight.data = torch.tensor([[step**2, -1.0]])
        seen.append(layer.weight.detach().clone())
        Training._average_(run)
    torch.testing.assert_close(run.average["weight"], torch.stack(seen).mean(0))


def test_a_record_of_a_posterior_found_otherwise_says_what_stands():
    gated = gated_for()
    gated.remove_(torch.arange(len(gated.alive)) == len(gated.alive) - 1)
    probs = torch.linspace(0.0, 1.0, len(gated.alive))
    epoch = record(gated, probs, epoch=3, elbo=-7.0, nll=0.5, seconds=2.0)
    assert (epoch.epoch, epoch.elbo, epoch.nll, epoch.seconds, epoch.prior_weight) == (3, -7.0, 0.5, 2.0, 1.0)
    assert epoch.kept == gated.kept() and torch.equal(epoch.inclusion, probs)
    assert epoch.undecided == int(((probs > 0.01) & (probs < 0.99)).sum())
    small, dense = bp.count(gated.network.plain(), data()[0]), bp.count(network(), data()[0])
    assert 100 > epoch.macs_percent == pytest.approx(100 * small.macs / dense.macs)
    assert 100 > epoch.parameters_percent == pytest.approx(100 * small.parameters / dense.parameters)


def test_averaged_weights_get_batch_statistics_of_their_own():
    result = fit(recipe=bp.Recipe(**FAST, averaging=0.5, compact_floor=0.5))
    network, x = result.gated.network.eval(), data()[0]
    batches = Batches(data(), 16, torch.device("cpu"), seed=0)
    first = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    before = nn.Sequential(*list(network.children())[: list(network.children()).index(first)])
    with torch.no_grad():
        means = torch.stack([before(x).mean((0, 2, 3)) for x, _ in batches.epoch(0)]).mean(0)
    torch.testing.assert_close(first.running_mean, means, rtol=1e-4, atol=1e-5)
    assert first.momentum == nn.BatchNorm2d(1).momentum and torch.isfinite(network(x)).all()


def test_compact_learning_rate_levels_off_at_its_floor():
    recipe = bp.Recipe(compact_learning_rate=0.1, compact_floor=0.25, averaging=0.5, decide=0.5)
    rates = [Schedule(recipe, steps=100).learning_rate(step, decided_at=50) for step in range(50, 101)]
    assert rates[0] == pytest.approx(0.1) and rates[25] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.025) == min(rates) and rates == sorted(rates, reverse=True)


def test_noise_on_units_is_there_while_training_and_at_no_other_time():
    quiet, noisy = fit(), fit(gated_for(unit_noise=0.5))
    assert noisy.history[0].nll != quiet.history[0].nll
    assert noisy.gated.unit_noise == {"0": 0.5, "4": 0.5, "5": 0.5}
    small, x = bp.prune(noisy), data()[0]
    assert torch.equal(small(x), small(x)) and torch.equal(small(x), bp.prune(noisy)(x))
    quality = bp.evaluate(noisy.gated, data())
    assert quality == bp.evaluate(noisy.gated, data())
    assert quality.nll == pytest.approx(bp.evaluate(small, data(), noisy.gated.likelihood).nll, rel=1e-5)


def test_same_seed_same_result_other_seed_other_result():
    one, two, three = fit(seed=1), fit(seed=1), fit(seed=2)
    same(one, two)
    assert one.history[0].nll != three.history[0].nll


def test_fit_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    fit(epochs=1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.filterwarnings("default::bayesprune.errors.EmptyGroupWarning")
def test_absurd_price_warns_by_group_and_empties_no_layer():
    with pytest.warns(EmptyGroupWarning, match=r"Group '(0|4|5)'.*Lower the price"):
        result = bp.fit(
            gated_for(price=1e6), data(), epochs=4, batch_size=16, recipe=bp.Recipe(**FAST), progress=False
        )
    assert all(1 <= n <= 2 for n in result.gated.kept().values())
    assert bp.prune(result)(data()[0]).isfinite().all()


@pytest.mark.parametrize("least", [1, 2, 3])
def test_a_group_keeps_its_least_units(least):
    result = fit(
        gated_for(price=1e6), epochs=4, recipe=bp.Recipe(**FAST), shrink=bp.Shrink(every=3, least=least)
    )
    assert min(result.gated.kept()["0"], result.gated.kept()["5"]) >= least


def test_prune_of_a_model_that_is_not_fitted_empties_no_layer():
    with pytest.warns(EmptyGroupWarning):
        small = bp.prune(gated_for(initial_inclusion=0.1))
    assert small(data()[0]).isfinite().all()


@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
def test_loss_that_becomes_nan_is_an_error_that_says_where(tmp_path):
    with pytest.raises(DivergedError, match=r"by step \d+ \(epoch 1\).*learning_rate"):
        fit(recipe=bp.Recipe(**{**FAST, "learning_rate": 1e30}), checkpoint=tmp_path)


def test_number_of_rows_must_be_the_likelihoods():
    with pytest.raises(LikelihoodError, match=r"rows=50.*has 96.*rows=96"):
        fit(gated_for(rows=50))


@pytest.mark.parametrize(
    "train, error, message",
    [
        ((torch.zeros(0, 1, 6, 6), torch.zeros(0).long()), (DataError, LikelihoodError), "no rows"),
        (
            (torch.zeros(ROWS, 1, 6, 6), torch.zeros(5).long()),
            DataError,
            "96 rows of inputs and 5 of targets",
        ),
        ((torch.full((ROWS, 1, 6, 6), torch.nan), data()[1]), DataError, "inputs hold NaN.*row 0"),
        ((data()[0], data()[1] + 7), LikelihoodError, "2 outputs"),
        ((data()[0], data()[1].float()), LikelihoodError, "class numbers"),
    ],
)
def test_unusable_data(train, error, message):
    with pytest.raises(error, match=message):
        fit(train=train)


def test_row_of_a_missing_target_is_named():
    y = torch.zeros(ROWS)
    y[7] = torch.nan
    with pytest.raises(DataError, match=r"targets hold NaN.*row 7"):
        fit(train=(data()[0], y))


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"batch_size": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(SettingsError, match="at least 1"):
        fit(**settings)


def test_recipe_reports_all_problems_at_once():
    with pytest.raises(SettingsError) as caught:
        bp.Recipe(
            learning_rate=-1.0, averaging=2.0, compact_floor=1.5, compact_weights="wide",
            warmup=0.5, ramp=0.5, decide=0.2,
            gates=bp.GateSteps(momentum=1.0, every=0),
            shrink=bp.Shrink(below=0.9, least=0),
        )  # fmt: skip
    for named in (
        "learning_rate=-1",
        "averaging=2",
        "compact_floor=1.5",
        "decide=0.2",
        "'wide'",
        "momentum=1",
        "every=0",
        "below=0.9",
        "least=0",
    ):
        assert named in str(caught.value)


def test_unknown_estimator_lists_the_known():
    with pytest.raises(SettingsError, match=r"magic.*straight_through.*enumeration"):
        fit(recipe=bp.Recipe(**FAST, estimator="magic"))


def test_data_loader_is_taken():
    loader = DataLoader(TensorDataset(*data()), batch_size=16, shuffle=True)
    result = fit(train=loader)
    assert result.history[-1].nll < result.history[0].nll
    assert bp.evaluate(result.gated, loader).name == "error_percent"


def test_evaluate_agrees_for_gated_and_pruned():
    result = fit()
    likelihood = result.gated.likelihood
    ours, theirs = bp.evaluate(result.gated, data()), bp.evaluate(bp.prune(result), data(), likelihood)
    assert ours.score == theirs.score and ours.nll == pytest.approx(theirs.nll, rel=1e-5)
    wrong = (bp.prune(result)(data()[0]).argmax(1) != data()[1]).float().mean() * 100
    assert theirs.score == pytest.approx(wrong.item(), rel=1e-5)
    with pytest.raises(LikelihoodError, match=r"result\.likelihood"):
        bp.evaluate(bp.prune(result), data())


def test_progress_on_a_terminal_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("bayesprune.svi.progress.is_terminal", lambda: True)
    fit(epochs=2, progress=True)
    err = capsys.readouterr().err
    assert "|" in err and "\r" in err and "ELBO" in err and "units" in err and "MACs" in err


@pytest.mark.parametrize("closed", [True, False])
def test_without_a_stream_there_is_no_progress_and_no_complaint(closed, monkeypatch):
    stream = io.StringIO() if closed else None
    stream.close() if stream else None
    monkeypatch.setattr(sys, "stderr", stream)
    assert _Stderr().write("a bar") == 5
    _Stderr().flush()
    assert fit(epochs=1, progress=True).history


def test_progress_in_a_file_is_ten_lines(capsys):
    fit(epochs=25, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert 5 <= len(lines) <= 10 and lines[-1].startswith("fit 100 %")
    assert all("ELBO" in line and "units" in line and "MACs" in line for line in lines)
    fit(epochs=2, progress=False)
    assert capsys.readouterr().err == ""


def test_dtype_of_the_network_is_kept():
    prior, example = priors.BernoulliGates(priors.Flattening(2.0)), torch.zeros(1, 1, 6, 6).double()
    gated = bp.gate(network().double(), example, prior=prior, likelihood=bp.Categorical(rows=ROWS))
    result = fit(gated, train=(data()[0].double(), data()[1]), epochs=2)
    assert {p.dtype for p in result.gated.network.parameters()} == {torch.float64}
    assert {p.dtype for p in bp.prune(result).parameters()} == {torch.float64}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fit_on_cuda_is_like_fit_on_the_cpu():
    cuda, cpu = fit(device="cuda"), fit(device="cpu")
    assert next(cuda.gated.parameters()).is_cuda
    assert cuda.undecided == 0 and abs(cuda.history[-1].nll - cpu.history[-1].nll) < 0.3
    x = data()[0]
    small = bp.prune(cuda)
    torch.testing.assert_close(small(x.cuda()).cpu(), small.cpu()(x), rtol=1e-4, atol=1e-4)


def test_the_nll_of_an_epoch_is_the_mean_over_its_rows(monkeypatch):
    """And not over its batches, of which the last is small."""
    seen, conclude = [], Engine.conclude

    def watched(engine, state, ready):
        rows = engine.rows
        state, info = conclude(engine, state, ready)
        seen.append((rows, float(info.nll)))
        return state, info

    monkeypatch.setattr(Engine, "conclude", watched)
    loader = DataLoader(TensorDataset(*data()), batch_size=ROWS - 3, shuffle=True)
    result = fit(train=loader, epochs=2, batch_size=None)
    assert [rows for rows, _ in seen] == [ROWS - 3, 3] * 2
    for epoch, (many, few) in zip(result.history, zip(seen[::2], seen[1::2], strict=True), strict=True):
        assert epoch.nll == pytest.approx(((ROWS - 3) * many[1] + 3 * few[1]) / ROWS, rel=1e-5)
        assert abs(many[1] - few[1]) > 1e-3 * many[1]
