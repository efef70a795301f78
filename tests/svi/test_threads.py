"""Threads of a fit: by the size of its work, as asked, and afterwards as they were."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import SettingsError
from bayesprune.svi.threads import WORK, asked_threads, threads_for, using_threads


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def fit(**settings):
    torch.manual_seed(0)
    x, seen = torch.randn(32, 4), []
    prior = priors.BernoulliGates(priors.Flattening(1.0))
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=32))
    settings = {"on_epoch": lambda epoch: seen.append(torch.get_num_threads()), **settings}
    bp.fit(gated, (x, (x[:, 0] > 0).long()), epochs=1, batch_size=16, progress=False, **settings)
    return seen


def test_small_networks_take_one_thread_and_large_ones_all():
    assert threads_for(2_293_000, 128) == 1  # LeNet-5
    assert threads_for(WORK, 1) == 1 and threads_for(2 * WORK, 1) == 2
    assert threads_for(313_000_000, 128) == 2, "never more than PyTorch's own number"


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
