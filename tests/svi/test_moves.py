"""Moves of units at the decision, against exact masks of conjugate models."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

import bayesprune as bp
from bayesprune.svi.candidates import singles
from bayesprune.svi.checkpoint_file import pack, unpack
from bayesprune.svi.mask_evidence import MOST_WORK, affordable
from bayesprune.svi.moves import Move, decide_, spared
from bayesprune.svi.training_state import TrainingState

ROWS, SCALE, PRICE = 200, 0.5, 5.0
PAIRS = bp.Moves(single=False)


def rows(seed, correlation):
    """Six inputs, the first two of which carry the same signal; the third has its own."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, 6, generator=generator)
    x[:, 1] = correlation * x[:, 0] + (1 - correlation**2) ** 0.5 * x[:, 1]
    y = x[:, 0] + 0.7 * x[:, 2] + torch.randn(ROWS, generator=generator)
    return x, y[:, None]


def gated_for(x, seed, price=PRICE, prior=None):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(6, 1, bias=False))
    prior = prior or bp.priors.BernoulliGates(bp.priors.Flattening(price))
    noise = bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False)
    return bp.gate(network, x[:1], prior=prior, likelihood=noise, weights=bp.priors.NormalWeights(SCALE))


def log_joint(x, y, mask, price=PRICE):
    """By the conjugate evidence: y ~ N(0, I + s² X_z X_zᵀ)."""
    part = x.double().numpy()[:, np.flatnonzero(mask)]
    covariance = np.eye(len(x)) + SCALE**2 * part @ part.T
    return float(multivariate_normal.logpdf(y[:, 0].numpy(), np.zeros(len(x)), covariance)) - price * sum(
        mask
    )


def fitted(x, y, seed, moves, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so short a training is told that it is
        return bp.fit(
            gated_for(x, seed), (x, y), epochs=25, batch_size=50, seed=seed, progress=False,
            recipe=bp.Recipe(moves=moves), **settings,
        )  # fmt: skip


def mask_of(result):
    return tuple(result.gated.alive.int().tolist())


def test_one_of_two_twins_is_kept_and_nats_are_those_of_the_exact_evidence():
    """Eight of eight; without moves both twins stay in most fits, or none does."""
    kept, before = [], []
    for seed in range(8):
        x, y = rows(seed, correlation=0.998)
        result = fitted(x, y, seed, PAIRS)
        mask = mask_of(result)
        kept.append(sum(mask[:2]))
        now = list((result.at_decision.inclusion_prob() >= 0.5).int().tolist())
        before.append(sum(now[:2]))
        for move in result.decision.moves:
            then = now.copy()
            for unit, value in ((move.out, 0), (move.into, 1)):
                if unit is not None:
                    then[unit] = value
            exact = log_joint(x, y, then) - log_joint(x, y, now)
            assert move.nats == pytest.approx(exact, abs=1e-3) and move.nats > 0
            assert move.correlation == pytest.approx(np.corrcoef(x[:, :2].T)[0, 1], abs=1e-5)
            now = then
        assert tuple(now) == mask
    assert kept == [1] * 8
    assert sum(count != 1 for count in before) >= 4, before


@pytest.mark.parametrize("seed", [0, 3])
def test_without_twins_a_fit_is_what_it_was(seed):
    x, y = rows(seed, correlation=0.0)
    plain, moved = (fitted(x, y, seed, moves) for moves in (None, PAIRS))
    assert moved.decision.pairs == moved.decision.masks == moved.decision.units == 0
    assert not moved.decision.why_none
    assert torch.equal(plain.gated.alive, moved.gated.alive)
    for a, b in zip(plain.gated.parameters(), moved.gated.parameters(), strict=True):
        assert torch.equal(a, b)
    assert plain.decision.why_none == "the recipe has none"


@pytest.mark.parametrize("moves", [bp.Moves(), bp.Moves(correlation=0.0)])
def test_units_that_were_lost_come_back_and_the_mask_is_the_most_probable_of_all(moves):
    """Seed 0 loses the third input, whose weight starts on the other side of zero, and gets it back."""
    for seed in (0, 4):
        x, y = rows(seed, correlation=0.0)
        result = fitted(x, y, seed, moves)
        best = max(itertools.product((0, 1), repeat=6), key=lambda mask: log_joint(x, y, mask))
        assert mask_of(result) == best == (1, 0, 1, 0, 0, 0)
        assert result.decision.complete and result.decision.moves
        assert result.decision.units == 6 and result.decision.rows == ROWS
        now = list((result.at_decision.inclusion_prob() >= 0.5).int().tolist())
        gain = log_joint(x, y, mask_of(result)) - log_joint(x, y, now)
        assert sum(move.nats for move in result.decision.moves) == pytest.approx(gain, abs=1e-3)
        part = x[:, [0, 2]].double()
        ridge = torch.linalg.solve(part.T @ part + torch.eye(2) / SCALE**2, part.T @ y.double())
        weights = result.gated.weight_tensors()["0.weight"].detach().double()[0]
        assert weights.numpy() == pytest.approx(ridge[:, 0].numpy(), abs=0.05)


def test_from_any_mask_of_twins_one_is_chosen_and_takes_over_the_weight():
    x, y = rows(1, correlation=0.998)
    best = max(((1, 0, 1), (0, 1, 1)), key=lambda mask: log_joint(x, y, [*mask, 0, 0, 0]))
    for start in ((1, 1, 1), (0, 0, 1), (1, 0, 1), (0, 1, 1)):
        gated = gated_for(x, seed=1)
        gated.weight_tensors()["0.weight"].data[:, :3] = torch.tensor([0.5, 0.5, 0.7])
        keep = torch.tensor([*start, 0, 0, 0], dtype=torch.bool)
        mask, found = decide_(gated, (x, y), PAIRS, keep, least=1)
        assert tuple(mask.int().tolist()) == (*best, 0, 0, 0)
        assert len(found.moves) == (0 if start == best else 1) and found.complete
        if found.moves:
            twin = gated.weight_tensors()["0.weight"].detach()[0, int(best[1])]
            assert float(twin) == pytest.approx(0.99, abs=0.02)  # of 0.5 and 0.5


def test_few_masks_are_said_to_be_incomplete_and_groups_are_not_emptied():
    x, y = rows(1, correlation=0.998)
    keep = torch.ones(6, dtype=torch.bool)
    _, found = decide_(gated_for(x, 1), (x, y), bp.Moves(correlation=0.0, masks=4), keep, least=1)
    assert found.masks == 4 and not found.complete
    mask, _ = decide_(gated_for(x, 1, price=500.0), (x, y), bp.Moves(correlation=0.0, masks=500), keep, 2)
    assert int(mask.sum()) == 2


def test_dead_units_with_a_twin_are_held_until_the_decision():
    x, y = rows(0, correlation=0.998)
    dead = torch.tensor([1, 0, 0, 1, 0, 0], dtype=torch.bool)
    held = spared(gated_for(x, 0), (x, y), PAIRS, dead)
    assert held.tolist() == [True, False, False, False, False, False]
    assert torch.equal(spared(gated_for(x, 0), (x, y), bp.Moves(), dead), dead)  # all may come back
    large = torch.randn(60_000, 6), torch.randn(60_000, 1)  # too many rows to ask of
    assert not bool(spared(gated_for(x, 0), large, bp.Moves(correlation=0.0), dead).any())


def test_twin_hidden_units_become_one():
    """A network that starts with the same hidden unit twice keeps both without moves."""
    for seed in (5,):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(200, 1, generator=generator)
        y = torch.tanh(1.5 * x) + 0.3 * torch.randn(200, 1, generator=generator)
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))
        network[0].weight.data[:2] = torch.tensor([[1.0], [1.05]])
        network[0].bias.data[:2] = torch.tensor([0.02, -0.02])
        network[2].weight.data[:, :2] = 0.5
        gated = bp.gate(
            network, x[:1], prior=bp.priors.BernoulliGates(bp.priors.Flattening(4.0)),
            likelihood=bp.Gaussian(rows=200, scale=0.3, learn_scale=False),
            weights=bp.priors.NormalWeights(1.0),
        )  # fmt: skip
        found = {}
        for moves in (None, bp.Moves()):
            result = bp.fit(
                gated, (x, y), epochs=60, batch_size=50, seed=seed, progress=False,
                recipe=bp.Recipe(moves=moves),
            )  # fmt: skip
            found[moves] = sum(mask_of(result)), bp.evaluate(result, (x, y)).nll
        (both, nll), (one, nll_of_one) = found.values()
        assert both >= 2 and one == 1
        assert nll_of_one <= nll + 0.02  # one unit does the work of both


def test_what_was_moved_is_in_the_state_of_a_training():
    x, y = rows(1, correlation=0.998)
    settings = {"steps": 80, "rows": (x, y), "recipe": bp.Recipe(decide=0.5)}
    first = bp.Training(gated_for(x, 1), **settings)
    for _ in range(60):
        first.loss((x, y)).backward()
        first.step()
    assert first.decided and first.decision.moves and isinstance(first.decision.moves[0], Move)
    second = bp.Training(gated_for(x, 1), **settings)
    second.load_state_dict(first.state_dict())
    assert second.decision == first.decision == second.result().decision
    strange = first.state_dict()
    strange.plain["decision"]["moves"][0]["unit"] = 3
    with pytest.raises(bp.errors.CheckpointError, match="unit"):
        bp.Training(gated_for(x, 1), **settings).load_state_dict(strange)
    old = first.state_dict()
    plain = {name: value for name, value in old.plain.items() if name != "decision"}
    third = bp.Training(gated_for(x, 1), **settings)
    third.load_state_dict(TrainingState(old.tensors, plain))  # of an earlier version
    assert third.decision.moves == ()


def test_why_no_moves_were_tried_is_said():
    x, y = rows(1, correlation=0.998)
    reasons = {}
    for name, keywords in {
        "no rows": {},
        "off": {"rows": (x, y > 0), "recipe": bp.Recipe(moves=None)},
    }.items():
        gated = bp.gate(
            nn.Sequential(nn.Linear(6, 1)), x[:1], prior=bp.priors.BernoulliGates(bp.priors.Flattening(5.0)),
            likelihood=bp.Bernoulli(rows=ROWS),
        )  # fmt: skip
        training = bp.Training(gated, steps=8, **keywords)
        for _ in range(8):
            training.loss((x, y > 0)).backward()
            training.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reasons[name] = training.result().decision.why_none
    assert reasons == {
        "no rows": "no training rows are known: give Training rows=",
        "off": "the recipe has none",
    }
    with pytest.raises(bp.errors.SettingsError, match=r"moves\.correlation=1\.0 must lie"):
        bp.Recipe(moves=bp.Moves(correlation=1.0))
    with pytest.raises(bp.errors.SettingsError, match=r"moves\.masks=0 must be at least"):
        bp.Recipe(moves=bp.Moves(masks=0))
    with pytest.raises(bp.errors.SettingsError, match=r"moves=5 must be a bp\.Moves"):
        bp.Recipe(moves=5)


def test_a_move_reads_as_a_sentence():
    assert str(Move("input", 1, None, 0, 0.998, 4.55)) == (
        "input: 1 goes, 0 does its work (correlation 0.998, +4.55 nats)"
    )
    assert "0 instead of 1" in str(Move("input", 1, 0, 0, 0.9, 1.0))
    assert "1 comes back, beside 0" in str(Move("input", None, 1, 0, 0.9, 1.0))
    assert str(Move("input", None, 1, None, None, 4.55)) == "input: 1 comes back (+4.55 nats)"
    assert str(Move("input", 1, None, None, None, 4.55)) == "input: 1 goes (+4.55 nats)"


def test_moves_survive_a_checkpoint_and_a_changed_one_is_refused(tmp_path):
    x, y = rows(1, correlation=0.998)
    result = fitted(x, y, 1, PAIRS, checkpoint=tmp_path)
    newest = max(tmp_path.glob("*.safetensors"))
    again = fitted(x, y, 1, PAIRS, checkpoint=tmp_path, resume=True)
    assert again.decision == result.decision and again.decision.moves
    tensors, plain = unpack(newest)
    plain["decision"]["moves"][0]["nats"] = "many"
    newest.write_bytes(pack(tensors, plain))
    with pytest.raises(bp.errors.CheckpointError, match=r"decision\.moves\.nats"):
        unpack(newest)


def test_what_earlier_versions_did_not_count_is_nothing(tmp_path):
    x, y = rows(1, correlation=0.998)
    fitted(x, y, 1, PAIRS, checkpoint=tmp_path)
    newest = max(tmp_path.glob("*.safetensors"))
    tensors, plain = unpack(newest)
    del plain["decision"]["units"], plain["decision"]["rows"]
    newest.write_bytes(pack(tensors, plain))
    assert unpack(newest)[1]["decision"]["units"] == 0


def test_many_units_are_not_asked_one_by_one_where_there_is_no_time_for_all():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 40, generator=generator)
    network = nn.Sequential(nn.Linear(40, 1, bias=False))
    gated = bp.gate(
        network,
        x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(5.0)),
        likelihood=bp.Gaussian(rows=100),
    )
    assert singles(gated, 100, bp.Moves()) == []  # 25 masks can be afforded
    gated.remove_(torch.arange(40) >= 20)
    assert len(singles(gated, 100, bp.Moves())) == 20  # and now 50
    assert singles(gated, 100, PAIRS) == []


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_masks_of_networks_of_many_outputs_are_not_asked_unasked():
    """A row's curvature is a matrix of outputs: 256 took minutes where a matter of seconds is promised."""
    x, y = torch.randn(40, 6), (torch.rand(40, 256) < 0.5).float()
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(2.0))

    def gated(outputs, likelihood):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 1, bias=False), nn.Linear(1, outputs, bias=False))
        return bp.gate(network, x[:1], prior=prior, likelihood=likelihood)

    one, ten = gated(1, bp.Gaussian(rows=40)), gated(10, bp.Categorical(rows=40))
    many = gated(256, bp.Bernoulli(rows=40))
    assert affordable(one, 40) == MOST_WORK // (7 * 40) and affordable(ten, 40) == MOST_WORK // (16 * 40)
    assert affordable(many, 40) == 0
    result = bp.fit(many, (x, y), epochs=1, batch_size=20, progress=False)
    assert result.decision.masks == 0
