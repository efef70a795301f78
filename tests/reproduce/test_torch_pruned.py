"""Torch-Pruning in a table: as small as it is to be, learnt under the same settings, and counted alike."""

import itertools
from dataclasses import replace

import pytest
import torch

import bayesprune as bp
from bayesprune.errors import SettingsError
from bayesprune.programs import find, load_model
from bayesprune.programs.execute import execute
from bayesprune.reproduce.methods import FORWARD_AND_BACK, WithoutGates
from bayesprune.reproduce.setup import Learnt, Setup
from bayesprune.reproduce.torch_pruned import CUTS, TorchPruned, _Loop

pytest.importorskip("torch_pruning", reason="the extra 'benchmarks' has it")
PEER = TorchPruned("peer", "ours")


def setup_of(program, size, epochs=2):
    digits = bp.data.digits(size)
    recipe = replace(load_model(program).recipe, gates=None)
    module = execute(find(program, "models"))
    return Setup(module, digits.train, digits.test, 10, epochs, 128, recipe, held_out=digits.train)


def other(setup, share):
    most = round(share * setup.gated(0).dense_parameters)
    return Learnt({}, most, 1, 1, 1, 0.0, [], 0.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(("program", "size"), [("lenet_300_100", 28), ("lenet5", 28), ("resnet20_cifar", 8)])
def test_it_is_as_small_as_it_is_to_be_and_learns(program, size):
    setup = setup_of(program, size)
    limit = other(setup, 0.3)
    before = torch.random.get_rng_state()
    found = PEER.learn(setup, 1.0, 0, limit)
    assert torch.equal(before, torch.random.get_rng_state())
    assert 0.95 * limit.parameters < found.parameters <= limit.parameters
    assert 0.15 < found.macs / found.dense_macs < 0.5
    assert len(found.errors) == 2 and found.errors[-1] == found.error < 85  # guessing errs in 90
    assert found.held_out_error is not None and found.undecided is None and not found.kept
    dense = FORWARD_AND_BACK * 2 * 1437 * found.dense_macs
    assert 0.3 * dense < found.training_macs < 0.8 * dense


@pytest.mark.parametrize(("program", "size"), [("lenet_300_100", 28), ("resnet20_cifar", 8)])
def test_without_a_cut_it_is_the_dense_twin(program, size):
    """The same first weights, order of rows, learning rates, decay, averages and statistics of norms."""
    setup = setup_of(program, size, epochs=2)
    recipe = replace(setup.recipe, averaging=0.5, decide=0.5)  # where this one's rate begins to fall
    setup = replace(setup, recipe=recipe)
    whole = setup.gated(0)
    loop = _Loop(setup, whole, 1.0, 0, whole.dense_parameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loop.run_()
    assert len(loop.limits) == CUTS and set(loop.limits.values()) == {whole.dense_parameters}
    assert loop.pruner.current_step == 0
    twin = WithoutGates("dense", "dense").learn(setup, 1.0, 0, None)
    assert twin.errors == pytest.approx(loop.errors, abs=0.6)  # two rows of 360


def test_costs_fall_by_one_factor_and_the_last_cut_is_at_half_of_the_steps():
    setup = setup_of("lenet_300_100", 28, epochs=10)
    whole = setup.gated(0)
    limits = _Loop(setup, whole, 1.0, 0, 2_666).limits
    steps, sizes = list(limits), [whole.dense_parameters, *limits.values()]
    assert steps[-1] == 10 * 11 // 2 and sizes[-1] == 2_666
    factors = [b / a for a, b in itertools.pairwise(sizes)]
    assert max(factors) - min(factors) < 1e-3


@pytest.mark.parametrize(("program", "size"), [("lenet5", 28), ("resnet20_cifar", 8)])
def test_adam_goes_on_with_the_moments_of_what_is_left(program, size):
    """Moments that are the weights themselves, and their squares, are still so after a cut."""
    loop = _Loop(setup_of(program, size), setup_of(program, size).gated(0), 1.0, 0, 1)
    optimiser = loop._optimiser()
    for parameter in loop.network.parameters():
        moments = {"exp_avg": parameter.detach().clone(), "exp_avg_sq": parameter.detach().square()}
        optimiser.state[parameter] = {"step": torch.tensor(7.0), **moments}
    before = loop._size()
    new = loop._cut(before // 4, optimiser)
    assert loop._size() <= before // 4
    for parameter in loop.network.parameters():
        state = new.state[parameter]
        assert state["step"] == 7 and torch.equal(state["exp_avg"], parameter)
        assert torch.equal(state["exp_avg_sq"], parameter.square())


def test_decay_is_the_prior_of_the_weights():
    setup = setup_of("lenet_300_100", 28)
    loop = _Loop(setup, setup.gated(0), 0.5, 0, 100_000)
    named = dict(loop.network.named_parameters())
    by = {id(p): group["weight_decay"] for group in loop._optimiser().param_groups for p in group["params"]}
    assert by[id(named["fc1.weight"])] == pytest.approx(1 / (1437 * 0.41**2))
    assert len(by) == len(named) and set(by.values()) == {by[id(named["fc1.weight"])]}  # biases have it too
    assert loop.plan.recipe.learning_rate == pytest.approx(0.5 * setup.recipe.learning_rate)


def test_what_it_cannot_reach_is_told():
    setup = setup_of("lenet_300_100", 28, epochs=1)
    with pytest.raises(SettingsError, match="one unit in each layer, and all inputs"):
        PEER.learn(setup, 1.0, 0, other(setup, 0.002))
    with pytest.raises(SettingsError, match="fitted to ours"):
        PEER.learn(setup, 1.0, 0, None)
