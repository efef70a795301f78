"""What a fit knows of masks: at the decision, and where gates are left undecided."""

import json
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import PosteriorError, RoundingWarning, SettingsError
from bayesprune.svi.checkpoint_file import CHECKSUM, PLAIN, _checksum
from tests.svi.fits import FAST, data, fit, gated_for, network, same

INPUTS, ROWS, WEIGHT = 6, 24, 0.35


def orthogonal():
    """Six orthogonal inputs under known weights and noise: gates are independent in the exact posterior."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(ROWS, INPUTS, generator=generator, dtype=torch.double))[0] * ROWS**0.5
    y = WEIGHT * x[:, :3].sum(1, keepdim=True) + torch.randn(ROWS, 1, generator=generator, dtype=torch.double)
    net = nn.Sequential(nn.Linear(INPUTS, 1, bias=False)).double()
    nn.init.constant_(net[0].weight, WEIGHT)
    noise = bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False).double()
    prior = priors.BernoulliGates(priors.Fixed(0.3))
    return bp.gate(net, x[:1], prior=prior, likelihood=noise, initial_inclusion=0.5), (x, y)


def exact(x, y):
    """logit p(z_i = 1 | y) = logit 0.3 + w xᵢᵀy − ½ w² xᵢᵀxᵢ: inputs are orthogonal."""
    gain = WEIGHT * (x.T @ y).squeeze(1) - 0.5 * WEIGHT**2 * x.square().sum(0)
    return torch.sigmoid(gain + np.log(0.3 / 0.7))


def known(decide, **settings):
    model, rows = orthogonal()
    recipe = bp.Recipe(
        estimator="enumeration",
        gates=bp.GateSteps(learning_rate=0.1, momentum=0.5, every=1),
        decide=0.8,
        moves=None,  # what gates say is looked at, and weights stand still
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few steps: the clock decides, which is what is looked at
        return bp.fit(
            model, rows, epochs=400, batch_size=ROWS, recipe=recipe, decide=decide, progress=False,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.0), **settings,
        ), exact(*rows)  # fmt: skip


def test_gates_that_are_left_undecided_are_those_of_the_exact_posterior():
    result, right = known(decide=False)
    assert 0.05 < right.min() < 0.3 and right.max() > 0.8  # neither certain nor hopeless
    torch.testing.assert_close(result.gated.inclusion_prob().detach(), right, atol=1e-3, rtol=0)
    assert (result.rounded, result.decided_at, result.at_decision) == (0, None, None)
    assert result.left_undecided and result.undecided == result.history[-1].undecided > 0
    draws = result.posterior().to_arviz(4000, prior=0)["posterior"]["gate/input"].values[0]
    # six means of 4,000 draws, each 5 standard deviations at the most: a false alarm in 3·10⁵ runs
    spread = (right * (1 - right) / 4000).sqrt().numpy()
    assert (abs(draws.mean(0) - right.numpy()) < 5 * spread + 1e-3).all()


def test_what_was_known_at_the_decision_is_kept_beside_what_was_decided(tmp_path):
    result, right = known(decide=None)
    probs = result.at_decision.inclusion_prob().detach()
    torch.testing.assert_close(probs, right, atol=1e-3, rtol=0)
    assert torch.equal(result.gated.alive, probs > 0.5)
    assert result.rounded == int(((probs > 0.01) & (probs < 0.99)).sum()) > 0
    before, after = (result.posterior(at).to_arviz(500, prior=0) for at in ("decision", "end"))
    assert (after["posterior"]["gate/input"].std("draw") == 0).all()
    assert (before["posterior"]["gate/input"].std("draw") > 0).any()
    assert float(before["sample_stats"]["parameters"].std()) > 0
    kept = bp.posterior.read(bp.posterior.write(after, tmp_path / "posterior.nc"))["constant_data"]
    np.testing.assert_allclose(kept["at_decision/input"].values[0], probs.numpy(), rtol=1e-6)
    torch.testing.assert_close(
        torch.tensor(before["posterior"]["inclusion_prob/input"].values[0, 0]), probs.float()
    )


class AtDecision(bp.Callback):
    def on_decision(self, training):
        gated = training.gated
        gates = {name: mask.to(gated.log_odds) for name, mask in gated.by_group(gated.alive).items()}
        with torch.no_grad():
            self.outputs = gated.eval().outputs(data()[0], gates)
        gated.train()


def test_the_model_at_the_decision_holds_the_weights_of_units_that_were_rounded_away():
    seen = AtDecision()
    result = fit(gated_for(1.0), recipe=bp.Recipe(**{**FAST, "decide": 0.3}), callbacks=[seen])
    before = result.at_decision
    assert int(before.alive.sum()) > int(result.gated.alive.sum())
    gates = {name: mask.to(before.log_odds) for name, mask in before.by_group(result.gated.alive).items()}
    with torch.no_grad():
        torch.testing.assert_close(before.outputs(data()[0], gates), seen.outputs, atol=1e-5, rtol=1e-5)


def test_prune_says_what_it_rounds_of_an_undecided_fit():
    result, right = known(decide=False)
    doubtful = int(((right > 0.01) & (right < 0.99)).sum())
    with pytest.warns(RoundingWarning, match=rf"left {doubtful} of 6 gates undecided.*bp\.predict"):
        small = bp.prune(result)
    assert small(torch.eye(INPUTS).double()).flatten().ne(0).tolist() == (right > 0.5).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bp.prune(known(decide=None)[0])
        bp.prune(result.gated)  # a gated model is what its owner made of it


def test_the_learning_rate_falls_from_where_gates_would_have_been_decided():
    rates = []

    class Rates(bp.Callback):
        def on_step(self, training, info):
            rates.append(training.optimizer.param_groups[0]["lr"])

    recipe = bp.Recipe(**FAST, decides=False)
    fit(recipe=recipe, callbacks=[Rates()])
    steps, turn = 36, round(0.6 * 36)
    assert rates[: turn + 1] == [1e-2] * (turn + 1)
    cosine = 1e-2 * 0.5 * (1 + np.cos(np.pi * (np.arange(turn, steps) - turn) / (steps - turn)))
    np.testing.assert_allclose(rates[turn:], cosine)


@pytest.mark.parametrize("weights", ["points", "normal"])
def test_gates_move_to_the_end_and_the_dead_are_removed(weights):
    turn, seen = round(0.6 * 36), []

    class Gates(bp.Callback):
        def on_step(self, training, info):
            if training.steps > turn:
                seen.append(info.moved)

    recipe = bp.Recipe(**FAST, decides=False, compact_weights=weights)
    result = fit(gated_for(8.0), recipe=recipe, callbacks=[Gates()])
    assert all(seen) and len(seen) == 36 - turn
    assert not result.gated.alive.all()
    assert bool(result.gated.log_scales) == (weights == "normal")


@pytest.mark.parametrize("decides", [True, False])
def test_a_resumed_fit_has_the_same_posterior_to_the_bit(tmp_path, decides):
    class Stop(Exception):
        pass

    def stop(record):
        if record.epoch == 5:  # behind the decision
            raise Stop

    recipe = bp.Recipe(**FAST, decides=decides, compact_weights="normal")
    whole = fit(recipe=recipe)
    with pytest.raises(Stop):
        fit(recipe=recipe, checkpoint=tmp_path, on_epoch=stop)
    resumed = fit(recipe=recipe, checkpoint=tmp_path, resume=True)
    same(whole, resumed)
    assert (resumed.at_decision is None) == (not decides)
    if decides:
        theirs = resumed.at_decision.state_dict()
        for name, value in whole.at_decision.state_dict().items():
            assert torch.equal(value, theirs[name]), name


def test_a_checkpoint_of_an_earlier_version_goes_on_without_what_it_has_not_kept(tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        if record.epoch == 5:
            raise Stop

    with pytest.raises(Stop):
        fit(checkpoint=tmp_path, on_epoch=stop)
    for path in tmp_path.glob("epoch-*.safetensors"):
        content = path.read_bytes()
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        tensors = {n: t for n, t in safetensors.torch.load(content).items() if not n.startswith("decision/")}
        plain = json.loads(head[PLAIN])
        del plain["settings"]["recipe"]["decides"]
        text = json.dumps(plain)
        saved = safetensors.torch.save(tensors, metadata={PLAIN: text, CHECKSUM: _checksum(tensors, text)})
        path.write_bytes(saved)
    resumed = fit(checkpoint=tmp_path, resume=True)
    same(fit(), resumed)
    with pytest.raises(PosteriorError, match="earlier version"):
        resumed.posterior("decision")


def test_what_cannot_be_is_refused():
    with pytest.raises(SettingsError, match=r"decides='no' must be True or False"):
        bp.Recipe(decides="no")
    with pytest.raises(SettingsError, match=r"decide=0.5 must be True or False"):
        fit(decide=0.5)
    with pytest.raises(SettingsError, match="EarlyStopping compares networks whose gates are decided"):
        fit(decide=False, callbacks=[bp.EarlyStopping()], validation=data())
    example = torch.zeros(1, 1, 6, 6)
    budget = bp.gate(network(), example, prior=bp.Budget(macs=0.5), likelihood=bp.Categorical(rows=96))
    with pytest.raises(SettingsError, match=r"budget is met by deciding.*posterior\('decision'\)"):
        fit(budget, decide=False)
    undecided = known(decide=False)[0]
    with pytest.raises(PosteriorError, match="left its gates undecided"):
        undecided.posterior("decision")
    with pytest.raises(PosteriorError, match="at='before'"):
        undecided.posterior("before")
