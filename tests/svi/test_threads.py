"""Threads of a computation: by the size of its work, as asked, and afterwards as they were."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bayesprune as bp
from bayesprune import priors, selection
from bayesprune.errors import SettingsError
from bayesprune.svi.threads import WORK, asked_threads, threads_for, using_threads


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def rows(count=32):
    torch.manual_seed(0)
    x = torch.randn(count, 4)
    return x, (x[:, 0] > 0).long()


def gate():
    prior = priors.BernoulliGates(priors.Flattening(1.0))
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    return bp.gate(network, rows()[0][:1], prior=prior, likelihood=bp.Categorical(rows=32))


def fit(train=None, **settings):
    seen = []
    settings = {"on_epoch": lambda epoch: seen.append(torch.get_num_threads()), **settings}
    if train is None:
        train, settings = rows(), {"batch_size": 16, **settings}
    bp.fit(gate(), train, epochs=1, progress=False, **settings)
    return seen


def watched(network):
    """The number of threads that each pass takes, noted by a network and by its copies."""
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(torch.get_num_threads()))
    return seen


def test_small_networks_take_one_thread_and_large_ones_all():
    assert threads_for(2_293_000, 128) == 1  # LeNet-5
    assert threads_for(WORK, 1) == 1 and threads_for(2 * WORK, 1) == 2
    assert threads_for(313_000_000, 128) == 2, "never more than PyTorch's own number"
    assert threads_for(3 * WORK, 1, learns=False) == 1 and threads_for(6 * WORK, 1, learns=False) == 2


def test_a_fit_takes_one_and_leaves_pytorchs_number_alone():
    assert fit() == [1] and torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert fit(threads=2) == [2] and torch.get_num_threads() == 1


def test_a_number_that_was_asked_for_holds_for_every_fit_inside():
    with asked_threads(2):
        assert fit() == [2]
    assert fit() == [1]


def test_the_number_is_put_back_when_a_fit_fails():
    def fail(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(on_epoch=fail)
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), using_threads(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_strange_numbers_are_refused(threads):
    with pytest.raises(SettingsError, match=r"threads=.*whole number"):
        fit(threads=threads)


def test_a_loader_with_workers_leaves_the_number_alone():
    loader = DataLoader(TensorDataset(*rows()), batch_size=16, num_workers=1)
    assert fit(loader) == [1] and torch.get_num_threads() == 2


RUNS = {
    "evaluate": lambda gated: bp.evaluate(gated, rows()),
    "evidence": lambda gated: bp.evidence(gated, rows(), units=2, progress=False),
    "diagnose": lambda gated: bp.diagnose(gated, rows(), draws=20),
    "posterior": lambda gated: bp.Posterior.of(gated).to_arviz(draws=20, prior=10, rows=rows()),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_what_runs_a_gated_model_takes_threads_by_its_size(run):
    gated = gate()
    seen = watched(gated.network)
    run(gated)
    assert 1 in seen and seen.count(2) <= 2, "passes before, that see whether the rows fit"
    assert torch.get_num_threads() == 2
    seen.clear()
    with asked_threads(2):
        run(gated)
    assert set(seen) == {2} and torch.get_num_threads() == 2


def test_certificates_are_made_and_verified_on_threads_by_size():
    network, options = nn.Linear(4, 2), {"alpha": 0.2, "loss": "disagreement", "progress": False}
    seen = watched(network)
    found = bp.certify(network, rows(200)[0], trained_on=rows(9)[0] + 9, **options)
    assert seen.count(1) > 10 and seen.count(2) <= 1, "one row, for its multiply-accumulates"
    assert torch.get_num_threads() == 2
    seen.clear()
    assert bp.certify.verify(found.certificate, found.network, rows(200)[0], reference=network)
    assert 1 in seen and torch.get_num_threads() == 2


def test_selecting_leaves_the_number_alone():
    subject = selection.Subject.of(gate())
    for rule in (selection.Magnitude(), selection.DPP(rows=rows()[0])):
        selection.select(rule, subject, share=0.6)
        assert torch.get_num_threads() == 2
