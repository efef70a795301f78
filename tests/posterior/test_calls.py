"""Posteriors of networks of several inputs and outputs: diagnosis, draws, evidence, what is kept on disk."""

import pytest
import torch

import bayesprune as bp
from bayesprune.rows.nested import taken_apart
from tests.structure.graph.calls import Classifier, LikeModelOutput, example

ROWS = 60


def data(kind, seed):
    x = example(ROWS, seed)
    del x["scale"]
    labels = x["ids"][:, 0] % 3
    return ((x["ids"], x["mask"], x["more"]), labels) if kind is tuple else {**x, "labels": labels}


@pytest.mark.parametrize(
    ("kind", "output"),
    [(tuple, 0), (dict, "logits"), (LikeModelOutput, "logits")],
    ids=["tuple", "dict", "record"],
)
def test_a_network_of_nested_inputs_and_outputs_goes_all_the_way(kind, output, tmp_path):
    torch.manual_seed(0)
    rows, others = data(kind, 1), data(kind, 2)
    inputs = rows[0] if kind is tuple else {k: v for k, v in rows.items() if k != "labels"}
    likelihood = bp.Categorical(rows=ROWS, output=output)
    gated = bp.gate(
        Classifier(kind), inputs, prior=bp.BernoulliGates(bp.Flattening(price=1.0)), likelihood=likelihood
    )
    result = bp.fit(gated, rows, epochs=1, batch_size=20, progress=False)

    assert bp.diagnose(result, rows=rows, held_out=others)
    draws = result.posterior().to_arviz(rows=others, draws=5)
    assert draws["log_likelihood"]["y"].shape[-1] == ROWS
    assert len(bp.evidence(result, rows=rows, progress=False))
    assert bp.evaluate(result, others).nll > 0

    small = bp.prune(result)
    bp.save(small, tmp_path, example=inputs)
    call = (lambda net: net(*inputs)) if kind is tuple else (lambda net: net(**inputs))
    found, loaded = (taken_apart(call(net.eval())) for net in (small, bp.load(tmp_path)))
    assert len(found[0]) and all(map(torch.equal, found[0], loaded[0]))
