"""Networks of several inputs and outputs: which output a certificate is of, and rows that are dicts."""

import json

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.certify import CalibrationRows, Certificate, TrainingRows, verify
from bayesprune.certify.paths import Units
from bayesprune.errors import CertificateError, DataError


class Two(nn.Module):
    """Two inputs, an answer and its opposite."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, left, right):
        logits = self.head(self.left(left).relu() + self.right(right).tanh())
        return {"wrong": -logits, "logits": logits}


@pytest.fixture(scope="module")
def two():
    torch.manual_seed(0)
    return Two().eval()


def rows_of(two, seed, name="labels", rows=400):
    """Labels are what the network answers, so that one output has no error and the other has only errors."""
    generator = torch.Generator().manual_seed(seed)
    x = {
        "left": torch.randn(rows, 4, generator=generator),
        "right": torch.randn(rows, 3, generator=generator),
    }
    with torch.no_grad():
        return {**x, name: two(**x)["logits"].argmax(-1)}


def certified(two, output="logits", name="labels", **more):
    return bp.certify(
        two,
        rows_of(two, 1, name),
        alpha=0.2,
        output=output,
        target=name,
        trained_on=rows_of(two, 2, name),
        progress=False,
        **more,
    )


@pytest.mark.parametrize("path", ["magnitude", Units(shares=[1.0, 0.8])], ids=["weights", "units"])
@pytest.mark.parametrize("output", ["logits", 1])
def test_the_output_that_is_meant_is_certified_and_told(two, path, output):
    found = certified(two, output, path=path)
    assert found and f"read at its output {output!r}" in found.certificate.statement
    assert found.certificate.record["output"] == output
    assert not certified(two, "wrong", path=path)


def test_a_certificate_is_verified_at_its_output(two, tmp_path):
    found = certified(two, name="goal")
    found.certificate.write(tmp_path / "certificate.json")
    assert found.network is not None
    asked = (found.network, rows_of(two, 1, "goal"))
    answer = verify(tmp_path / "certificate.json", *asked, reference=two, target="goal")
    assert answer, answer
    record = json.loads((tmp_path / "certificate.json").read_text())
    record["output"] = "wrong"
    assert not verify(Certificate(record), *asked, target="goal")
    record["statement"] = record["statement"].replace("logits", "wrong")
    assert not verify(Certificate(record), *asked, target="goal")


def test_one_output_of_several_must_be_named(two):
    with pytest.raises(CertificateError, match=r"returns a dict with 'wrong', 'logits'.* output='wrong'"):
        certified(two, None)
    with pytest.raises(CertificateError, match="output='absent'"):
        certified(two, "absent")
    with pytest.raises(CertificateError, match="must be a name"):
        certified(two, True)


def test_a_network_of_one_output_has_none_in_its_certificate(certify):
    assert "output" not in certify().certificate.record


def test_rows_of_a_dict_are_compared_without_their_targets(two):
    rows = rows_of(two, 1, "goal")
    digests = TrainingRows.of(rows, target="goal")
    assert digests.shape == (7,)
    found = CalibrationRows.of(rows, target="goal")
    assert found.x.told().count("goal") == 0 and found.y.equal(rows["goal"])
    again = CalibrationRows.of(CalibrationRows(found.x, found.y, "known"))
    assert again.sha256 == found.sha256 and again.known == "known"


def test_several_inputs_without_labels_are_a_pair_with_none(two):
    rows, others = rows_of(two, 1), rows_of(two, 2)
    x, trained_on = ((given["left"], given["right"]) for given in (rows, others))
    asked = {"alpha": 0.2, "output": "logits", "loss": "disagreement", "progress": False}
    found = bp.certify(two, (x, None), trained_on=(trained_on, None), **asked)
    named = {name: rows[name] for name in ("left", "right")}
    again = bp.certify(two, named, trained_on=(trained_on, None), **asked)
    path = found.certificate.record["path"]
    assert found and path == again.certificate.record["path"]


class Nested(nn.Module):
    """Arguments that are a tensor, and a dict of a tuple."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x, more):
        return self.head(self.second(self.first(x).relu() * more["by"][0]).relu())


@pytest.mark.parametrize("rule", [bp.selection.DPP, bp.selection.Fuse])
def test_rules_take_inputs_alone_that_are_nested(rule):
    torch.manual_seed(0)
    inputs = (torch.randn(60, 4), {"by": (torch.rand(60, 1), None)})
    subject = bp.selection.Subject.of(Nested(), inputs)
    chosen = rule(rows=inputs) if rule is bp.selection.DPP else bp.selection.Magnitude()
    masks = bp.selection.select(chosen, subject, share=0.8)
    fuse = rule(rows=inputs) if rule is bp.selection.Fuse else None
    small = bp.selection.prune(subject, masks, fuse=fuse)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in Nested().parameters())
    with pytest.raises(DataError):
        bp.selection.select(bp.selection.DPP(rows=(inputs[0], {"other": inputs[0]})), subject, share=0.8)
