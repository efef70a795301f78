"""bfloat16 and float16: forward passes in half precision, gates and prices in single."""

import warnings

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import EmptyGroupWarning, SettingsError, UnsupportedNetworkError
from bayesprune.svi.objective import gate_nats, weight_nats
from tests.svi.fits import FAST, data, gated_for, same

HALF = [torch.bfloat16, torch.float16]
LONGER = bp.Recipe(**{**FAST, "learning_rate": 2e-2})


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 12), nn.LayerNorm(12),
        nn.ReLU(), nn.Linear(12, 2),
    )  # fmt: skip


def fitted(gated=None, rows=None, **settings):
    settings = {"epochs": 12, "batch_size": 16, "recipe": LONGER, "progress": False, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        return bp.fit(gated or gated_for(price=0.3, net=net()), rows or data(), **settings)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_fit_under_autocast_learns_as_one_without(dtype):
    plain, half = fitted(), fitted(autocast=dtype)
    assert half.history[-1].nll < 0.25 and plain.history[-1].nll < 0.25
    assert abs(half.history[-1].nll - plain.history[-1].nll) < 0.15
    assert {p.dtype for p in half.gated.parameters()} == {torch.float32}
    assert sum(half.gated.kept().values()) < len(half.gated.alive)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_fit_under_autocast_resumes_bit_equal(tmp_path, monkeypatch, dtype):
    class Stop(Exception):
        pass

    def stop(epoch):
        if epoch.epoch == 5:
            raise Stop

    overflow = torch.amp.GradScaler  # whose first scale is too large for float16: steps are left out
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: overflow(device, init_scale=2.0**40))
    whole = fitted(autocast=dtype)
    with pytest.raises(Stop):
        fitted(autocast=dtype, checkpoint=tmp_path, on_epoch=stop)
    same(whole, fitted(autocast=dtype, checkpoint=tmp_path, resume=True))


def test_weights_in_bfloat16_and_gates_in_float32():
    x, y = data()
    gated = bp.gate(
        net().bfloat16(), x[:2].bfloat16(), prior=priors.BernoulliGates(priors.Flattening(0.3)),
        likelihood=bp.Categorical(rows=96),
    )  # fmt: skip
    assert gated.log_odds.dtype == torch.float32
    result = fitted(gated, (x.bfloat16(), y))
    assert result.history[-1].nll < 0.3
    assert {p.dtype for p in result.gated.network.parameters()} == {torch.bfloat16}
    assert result.gated.log_odds.dtype == torch.float32 == result.history[-1].inclusion.dtype
    small = bp.prune(result)
    assert small(x.bfloat16()).dtype == torch.bfloat16


def test_to_another_type_leaves_gates_and_prices_at_least_single():
    class Rate(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(1 / 3))

        def forward(self, group):
            return priors.Gates(probs=self.rate.expand(group.size))

    gated = bp.gate(net(), data()[0][:2], prior=Rate(), likelihood=bp.Gaussian(rows=96))
    gated.log_odds.data.fill_(1 / 3)
    half = gated.bfloat16()
    assert {p.dtype for p in half.network.parameters()} == {torch.bfloat16}
    for tensor in (half.log_odds, half.prior.rate, *half.likelihood.parameters()):
        assert tensor.dtype == torch.float32
    third = torch.tensor(1 / 3).item()
    assert half.log_odds[0].item() == third == half.prior.rate.item()  # not by way of bfloat16
    assert half.form.inputs.dtype == torch.bfloat16
    double = half.double()
    assert {p.dtype for p in double.parameters()} == {torch.float64}


def test_nats_of_bfloat16_weights_are_added_up_in_float32():
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 2))
    prior = priors.BernoulliGates(priors.Flattening(1.0))
    x = torch.zeros(2, 300)
    single = bp.gate(wide, x, prior=prior, likelihood=bp.Categorical(rows=96))
    half = bp.gate(wide.bfloat16(), x.bfloat16(), prior=prior, likelihood=bp.Categorical(rows=96))
    probs = single.inclusion_prob().detach()
    rounded = single.double()
    for (_, p), (_, q) in zip(
        rounded.network.named_parameters(), half.network.named_parameters(), strict=True
    ):
        p.data.copy_(q.data)
    exact = weight_nats(rounded, probs.double()).item()
    assert exact > 1_000
    assert weight_nats(half, probs).item() == pytest.approx(exact, rel=1e-5)
    assert float(gate_nats(half, probs)) == pytest.approx(float(gate_nats(single, probs.double())), rel=1e-6)


def test_a_scaler_of_ones_own_that_skips_a_step_skips_it_for_the_gates():
    gated = gated_for(price=0.3, net=net())
    optimizer = torch.optim.SGD(gated.parameters(), lr=0.05)
    training = bp.Training(gated, steps=36, optimizer=optimizer, recipe=bp.Recipe(**FAST))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    x, y = data()
    for step in range(10):
        loss = training.loss((x[:16], y[:16]))
        scaler.scale(loss).backward()
        if step == 5:
            gated.network.get_parameter("0.weight").grad.fill_(torch.inf)
            before = gated.log_odds.detach().clone(), [p.detach().clone() for p in gated.parameters()]
        info = training.step(scaler)
        if step == 5:
            assert info is None and training.steps == 5 and scaler.get_scale() == 2.0
            assert torch.equal(gated.log_odds, before[0])
            assert all(torch.equal(a, b) for a, b in zip(gated.parameters(), before[1], strict=True))
        else:
            assert info is not None
    assert training.steps == 9


@pytest.mark.parametrize("fused", [False, True])
def test_a_scaled_loss_takes_the_same_steps(fused):
    """Powers of two scale exactly: gates and weights end bit-equal, whether the kernel unscales or we do."""
    ended = []
    for scale in (None, 1.0, 64.0):
        gated = gated_for(price=0.3, net=net())
        optimizer = torch.optim.Adam(gated.parameters(), lr=1e-2, fused=fused)
        training = bp.Training(gated, steps=36, optimizer=optimizer, recipe=bp.Recipe(**FAST))
        scaler = (
            None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        )
        x, y = data()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyGroupWarning)
            for step in range(24):
                part = slice(16 * (step % 6), 16 * (step % 6) + 16)
                loss = training.loss((x[part], y[part]))
                (loss if scaler is None else scaler.scale(loss)).backward()
                training.step(scaler)
        ended.append({k: v.clone() for k, v in gated.state_dict().items()})
    for other in ended[1:]:
        for name, value in ended[0].items():
            torch.testing.assert_close(other[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_what_is_no_precision_is_refused():
    with pytest.raises(SettingsError, match=r"autocast=.* must be torch\.bfloat16"):
        fitted(autocast=torch.float64)
    with pytest.raises(UnsupportedNetworkError, match="float16"):
        bp.gate(
            net().half(), data()[0][:2].half(), prior=bp.Budget(macs=0.5), likelihood=bp.Categorical(rows=96)
        )
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(SettingsError, match=r"autocast=torch\.bfloat16"),
    ):
        fitted()
