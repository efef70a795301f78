"""Inputs of several tensors, and outputs of several parts, from gate to what comes out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch.utils.data import DataLoader, Dataset, TensorDataset

import bayesprune as bp
from bayesprune.errors import DataError, LikelihoodError, SettingsError
from bayesprune.likelihoods.parts import part_of
from bayesprune.rows.call import Call
from bayesprune.svi.settings import Recipe
from bayesprune.svi.step import Engine
from tests.structure.graph.calls import Classifier, LikeModelOutput, Output, Siamese, example

ROWS = 64
INPUTS = {name: value for name, value in example(ROWS).items() if name in ("ids", "mask")}
LABELS = INPUTS["ids"].sum(1) % 3
DICT = {**INPUTS, "labels": LABELS}
PRIOR = bp.priors.BernoulliGates(bp.priors.Flattening(price=3.0))


class Items(Dataset):
    """Rows that are dicts."""

    def __len__(self):
        return ROWS

    def __getitem__(self, row):
        return {name: value[row] for name, value in DICT.items()}


def few(batch, rows=2):
    return {name: value[:rows] for name, value in batch.items()}


def gated(kind=LikeModelOutput, likelihood=None, batch=INPUTS):
    torch.manual_seed(0)
    likelihood = likelihood or bp.Categorical(rows=ROWS, output="logits")
    return bp.gate(Classifier(kind), few(batch), prior=PRIOR, likelihood=likelihood)


def fitted(model, rows):
    return bp.fit(
        model, rows, epochs=1, batch_size=None if isinstance(rows, DataLoader) else 16, progress=False
    )


FORMS = {
    "pair": (INPUTS, LABELS),
    "dict": DICT,
    "data set": Items(),
    "loader": DataLoader(Items(), batch_size=16),
}


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_rows_are_the_same_in_whichever_form_they_come():
    found = {name: fitted(gated(), rows) for name, rows in FORMS.items() if name != "loader"}
    elbo = {name: result.history[-1].elbo for name, result in found.items()}
    assert len(set(elbo.values())) == 1, elbo
    result = found["dict"]
    scores = {name: bp.evaluate(result, rows) for name, rows in FORMS.items()}
    small = bp.prune(result)
    assert type(small) is Classifier and type(small(**few(INPUTS))) is LikeModelOutput
    scores["pruned"] = bp.evaluate(small, DICT, result.likelihood)
    assert all(score.nll == pytest.approx(scores["pair"].nll, rel=1e-6) for score in scores.values()), scores


@pytest.mark.parametrize(
    ("kind", "output"), [(LikeModelOutput, None), (Output, None), (tuple, 0), (dict, "logits")]
)
def test_the_part_that_is_read_is_the_part_of_the_network(kind, output):
    model = gated(kind, bp.Categorical(rows=ROWS, output=output)).eval()
    torch.manual_seed(0)
    expected = part_of(Classifier(kind).eval()(**INPUTS), output, "")
    x = model.form.read(INPUTS, "rows")
    torch.testing.assert_close(model.network(x), expected, rtol=0, atol=1e-6)
    draws = {g.name: torch.rand(3, ROWS, g.size).round() for g in model.groups}  # of three draws
    each = torch.stack([model.network(x, {n: z[i] for n, z in draws.items()}) for i in range(3)])
    torch.testing.assert_close(model.network(x, draws), each, rtol=0, atol=1e-6)


def test_pyro_takes_inputs_as_they_are():
    model = gated()
    trace = poutine.trace(model.model).get_trace(INPUTS, LABELS)
    assert trace.nodes["_RETURN"]["value"].shape == (ROWS, 3)
    assert math.isfinite(Trace_ELBO().loss(model.model, model.guide, INPUTS, LABELS))


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_a_networks_own_loss_is_a_likelihood():
    model = gated(likelihood=bp.ModelLoss(rows=ROWS), batch=DICT)
    other = gated()
    model.eval(), other.eval()
    assert bp.evaluate(model, DICT).nll == pytest.approx(bp.evaluate(other, DICT).nll, rel=1e-6)
    x, y = model.form.read(DICT, "rows"), LABELS
    draws = {g.name: torch.rand(2, 1, g.size).round() for g in model.groups}
    nll = model.likelihood.nll(model.network(x, draws), y)
    expected = other.likelihood.nll(other.network(other.form.read(INPUTS, "rows"), draws), y).mean(-1)
    torch.testing.assert_close(nll, expected[:, None].expand(2, ROWS), rtol=0, atol=1e-6)
    result = fitted(model, DICT)
    assert result.history[-1].nll < 1.3
    with pytest.raises(LikelihoodError, match="has the mean loss of a batch"):
        bp.evidence(result, DICT)


@pytest.mark.parametrize("estimator", ["straight_through", "second_order", "curved", "concrete"])
def test_a_step_on_a_loss_of_the_batch_is_the_one_on_its_rows(estimator):
    found = []
    for model, rows in ((gated(likelihood=bp.ModelLoss(rows=ROWS), batch=DICT), DICT), (gated(), INPUTS)):
        engine = Engine(model, Recipe(estimator=estimator), seed=3)
        state, info = engine.step(engine.init(), (model.form.read(rows, "rows"), LABELS))
        found.append((state.velocity, info.nll))
    assert found[0][0].abs().max() > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("estimator", ["reinforce", "arm"])
def test_what_needs_losses_of_rows_refuses_one_of_the_batch(estimator):
    model = gated(likelihood=bp.ModelLoss(rows=ROWS), batch=DICT)
    with pytest.raises(SettingsError, match=f"estimator='{estimator}'.*ModelLoss.*'straight_through'"):
        bp.fit(model, DICT, epochs=1, recipe=Recipe(estimator=estimator), progress=False)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_batches_of_one_row_are_learnt_from():
    rows = {name: value[:6] for name, value in DICT.items()}
    model = gated(likelihood=bp.Categorical(rows=6, output="logits"))
    assert math.isfinite(bp.fit(model, rows, epochs=1, batch_size=1, progress=False).history[-1].nll)


def test_another_constant_is_another_call():
    model = gated()
    x = model.form.read(INPUTS, "rows")
    other = Call(x.tensors, replace(x.form, named={**x.form.named, "scale": 2.0}))
    with pytest.raises(DataError, match="scale"):
        model.network(other)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_evidence_certificates_and_rules_take_the_same_rows(tmp_path):
    result = fitted(gated(), DICT)
    assert torch.equal(
        torch.as_tensor(bp.evidence(result, DICT).gain),
        torch.as_tensor(bp.evidence(result, (INPUTS, LABELS)).gain),
    )
    small = bp.prune(result)
    fresh = example(ROWS, seed=5)
    rows = {"ids": fresh["ids"], "mask": fresh["mask"], "labels": fresh["ids"].sum(1) % 3}
    certified = bp.certify(small, rows, loss="error", alpha=0.9, trained_on=DICT)
    assert "none of them is among the 64 training rows" in str(
        certified.certificate.record["calibration"]["held_out"]
    )
    with pytest.raises(bp.errors.CertificateError, match="were trained on"):
        bp.certify(small, DICT, loss="error", alpha=0.9, trained_on=DICT)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_several_tensors_by_position_come_as_a_tuple_or_one_after_the_other():
    torch.manual_seed(0)
    a, b = torch.rand(ROWS, 6), torch.rand(ROWS, 6)
    y = (a.sum(1) > b.sum(1)).long()
    model = bp.gate(Siamese(), (a[:2], b[:2]), prior=PRIOR, likelihood=bp.Categorical(rows=ROWS))
    first, second = fitted(model, ((a, b), y)), fitted(model, TensorDataset(a, b, y))
    assert first.history[-1].elbo == second.history[-1].elbo


WRONG = [
    (
        lambda: gated(dict, bp.Categorical(rows=ROWS)),
        LikelihoodError,
        "returns a dict with 'logits': say which",
    ),
    (lambda: gated(likelihood=bp.Categorical(rows=ROWS, output="logit")), LikelihoodError, "output='logits'"),
    (lambda: gated(likelihood=bp.ModelLoss(rows=ROWS)), LikelihoodError, "reads output='loss'"),
    (lambda: fitted(gated(), INPUTS), DataError, "train: a dict with the keys 'ids', 'mask', and rows"),
    (lambda: fitted(gated(), {"ids": INPUTS["ids"], "labels": LABELS}), DataError, "inputs lack 'mask'"),
    (lambda: fitted(gated(), {**DICT, "more": LABELS}), DataError, "inputs have 'more'"),
    (lambda: fitted(gated(), {**DICT, "mask": DICT["mask"].float()}), DataError, "'mask' does not fit"),
    (
        lambda: fitted(gated(), {**DICT, "mask": DICT["mask"][:9]}),
        DataError,
        "'mask' has 9 rows, and",
    ),
    (lambda: bp.Categorical(rows=ROWS, output=1.5), LikelihoodError, "output=1.5 must be a name"),
    (lambda: bp.Categorical(rows=ROWS, target=""), LikelihoodError, "target='' must be a name"),
]


@pytest.mark.parametrize(("call", "error", "said"), WRONG, ids=[said for *_, said in WRONG])
def test_what_does_not_fit_is_named(call, error, said):
    with pytest.raises(error, match=said):
        call()
