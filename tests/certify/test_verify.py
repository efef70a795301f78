"""verify(): true of what was certified, false of anything else, and every tampering is found."""

import copy
import json

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.certify import Certificate, sign, verify
from bayesprune.certify.certificate import canonical
from bayesprune.certify.losses import OwnLoss
from bayesprune.certify.paths import Weights
from bayesprune.certify.shape import inconsistent
from bayesprune.errors import CertificateError

PATH = Weights(shares=[0.0, 0.3, 0.6, 0.9])


@pytest.fixture(scope="module")
def found(certify):
    return certify(path=PATH)


@pytest.fixture(scope="module")
def rows(digits):
    return digits[1]


@pytest.mark.parametrize("loss", ["error", "excess", "selective"])
@pytest.mark.parametrize("rule", ["fixed-sequence", "split-fixed-sequence", "multi-start", "bonferroni"])
def test_a_certificate_is_true_of_what_was_certified(certify, network, rows, loss, rule, tmp_path):
    found = certify(path=PATH, loss=loss, rule=rule, alpha=0.1)
    found.certificate.write(tmp_path / "certificate.json")
    answer = verify(tmp_path / "certificate.json", found.network, rows, reference=network)
    assert answer and answer.complete, answer
    assert "4 candidates made and tested again" in str(answer) and str(answer).startswith("true")


def test_structured_paths_are_recomputed_too(certify, network, rows):
    found = certify(path="units", alpha=0.15)
    assert found and verify(found.certificate, found.network, rows, reference=network).complete


def test_without_the_reference_the_rest_is_taken_as_written(found, rows, certify, network):
    answer = verify(found.certificate, found.network, rows)
    assert answer and not answer.complete and "taken as written" in str(answer)
    given = certify(path=[network])
    assert "no file can make again" in str(verify(given.certificate, network, rows, reference=network))
    with pytest.raises(CertificateError, match="give it too"):
        verify(
            certify(path=PATH, loss="disagreement").certificate,
            certify(path=PATH, loss="disagreement").network,
            rows,
        )


def test_other_networks_and_rows_are_told(found, rows, network):
    x, y = rows
    changed = copy.deepcopy(found.network)
    changed[1].bias.data[0] += 1e-6
    for answer, what in (
        (verify(found.certificate, changed, rows), "network"),
        (verify(found.certificate, found.network, (x.flip(0), y.flip(0))), "rows"),
        (verify(found.certificate, found.network, (x[1:], y[1:])), "rows"),
        (verify(found.certificate, found.network, (x, y.roll(1))), "rows"),
        (verify(found.certificate, found.network, rows, reference=found.network), "reference"),
    ):
        assert not answer and [check.what for check in answer.problems] == [what]


def tamperings():
    """name → what is done to the record."""

    def put(*place):
        def change(record):
            *parents, key, value = place
            for parent in parents:
                record = record[parent]
            record[key] = value(record[key]) if callable(value) else value

        return change

    return {
        "lower alpha": put("alpha", 0.05),
        "lower delta": put("delta", 0.01),
        "another sentence": put("statement", lambda text: text.replace("8 %", "1 %")),
        "another assumption": put("assumes", "none"),
        "a further candidate": put("certified", 3),
        "a less pruned candidate": put("certified", 0),
        "a p-value": put("path", 3, "p_value", 0.001),
        "a risk": put("path", 1, "risk", 0.0),
        "a sparsity": put("path", 2, "sparsity", 0.99),
        "a coverage": put("path", 2, "coverage", 0.5),
        "numbers left": put("path", 2, "parameters_left", 12),
        "another hash": put("network", "sha256", lambda digest: digest[::-1]),
        "a candidate's hash": put("path", 1, "weights_sha256", "0" * 64),
        "numbers held": put("path", 2, "parameters", 10**6),
        "what was needed": put("next", "alpha", 0.2),
        "the rows that were needed": put("next", "rows", 10),
        "nothing that failed": put("next", None),
        "rows that repeat": put("calibration", "repeats", "each"),
        "MACs": put("network", "macs", 1),
        "MACs of the reference": put("reference", "macs", 10**9),
        "shapes": put("network", "shapes", {"1.weight": [[40, 784], [4, 784]]}),
        "the reference's hash": put("reference", "sha256", "0" * 64),
        "a candidate left out": lambda record: record["path"].pop(0),
        "another share": put("path", 1, "recipe", "share", 0.4),
        "another rule": put("rule", {"name": "split-fixed-sequence"}),
        "another loss": put("loss", {"name": "disagreement"}),
        "more rows": put("calibration", "rows", 5000),
        "other rows": put("calibration", "sha256", "0" * 64),
        "a p-value of another kind": put("p_value", {"name": "hoeffding-bentkus"}),
        "an order": put("order", [3, 2, 1, 0]),
        "fewer parameters": put("reference", "parameters", 100),
    }


@pytest.mark.parametrize("name", tamperings())
def test_every_tampering_is_found(found, rows, network, name):
    record = copy.deepcopy(found.certificate.record)
    assert record["certified"] in (1, 2)
    tamperings()[name](record)
    try:
        answer = verify(Certificate(record), found.network, rows, reference=network)
    except CertificateError:
        return
    assert not answer and answer.problems, answer


def test_a_consistent_forgery_of_alpha_is_found_by_recomputing(found, rows, network):
    """A sentence, a level and p-values that agree with each other, and not with the network."""
    record = copy.deepcopy(found.certificate.record)
    record["alpha"] = 0.001
    record["statement"] = record["statement"].replace("8 %", "0.1 %")
    answer = verify(Certificate(record), found.network, rows)
    assert [check.what for check in answer.problems] == ["risk"]


def test_an_order_that_was_chosen_afterwards_is_found_without_the_reference(found, rows):
    """The fixed sequence must take the path's order: another would be free to begin with the lucky ones."""
    record = copy.deepcopy(found.certificate.record)
    best = record["certified"]
    record["order"] = [best, *(place for place in range(4) if place != best)]
    assert not verify(Certificate(record), found.network, rows)


def test_a_certificate_of_nothing_is_false(certify, network, rows):
    answer = verify(certify(alpha=0.01, path=PATH).certificate, network, rows)
    assert not answer and "certifies no network" in str(answer)


def test_a_loss_of_ones_own_is_given_again(certify, rows):
    own = OwnLoss(lambda y_hat, y: (y_hat.argmax(1) != y).float(), "mine", zero_one=True)
    found = certify(loss=own, path=PATH)
    assert verify(found.certificate, found.network, rows, loss=own)
    with pytest.raises(CertificateError, match="somebody's own"):
        verify(found.certificate, found.network, rows)
    lying = OwnLoss(lambda y_hat, y: (y_hat.argmax(1) == y).float(), "mine", zero_one=True)
    assert not verify(found.certificate, found.network, rows, loss=lying)


def test_files_that_are_no_certificates_are_named(found, tmp_path):
    path = tmp_path / "certificate.json"
    found.certificate.write(path)
    assert Certificate.read(path) == found.certificate
    whole = path.read_text()
    for content, message in (
        (whole[:200], "truncated"),
        ("[]", "not a JSON object"),
        ('{"format": "other"}', "no certificate of this version"),
        (json.dumps({"format": "bayesprune certificate", "format_version": 2}), "statement is missing"),
        (json.dumps({"format": "bayesprune certificate", "format_version": 1}), "does not bind the arch"),
    ):
        path.write_text(content)
        with pytest.raises(CertificateError, match=message):
            Certificate.read(path)
    with pytest.raises(CertificateError, match="no such file"):
        Certificate.read(tmp_path / "none.json")
    with pytest.raises(CertificateError, match="path is 'nothing', not a list"):
        Certificate({**found.certificate.record, "path": "nothing"})


@pytest.fixture
def keys(tmp_path):
    """Files of a private key, its public key, and another public key."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    mine, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    pkcs8 = mine.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pkcs8)
    for name, key in (("public.pem", mine), ("other.pem", other)):
        info = form.PublicFormat.SubjectPublicKeyInfo
        (tmp_path / name).write_bytes(key.public_key().public_bytes(form.Encoding.PEM, info))
    return [tmp_path / name for name in ("key.pem", "public.pem", "other.pem")]


def test_a_signature_shows_who_and_that_nothing_was_changed(found, rows, keys, tmp_path):
    key, public, other = keys
    signed = sign(found.certificate, key)
    signed.write(tmp_path / "signed.json")
    answer = verify(tmp_path / "signed.json", found.network, rows, public_key=public)
    assert answer and "signed by the key given" in str(answer)
    assert verify(signed, found.network, rows)
    later = Certificate({**signed.record, "created": "2031-01-01"})
    for certificate, asked, why in (
        (signed, other, "signed by another key"),
        (found.certificate, public, "not signed"),
        (later, public, "changed after it was signed"),
        (later, None, "changed after it was signed"),
        (Certificate({**signed.record, "signature": {"public_key": "x"}}), None, "cannot be read"),
    ):
        answer = verify(certificate, found.network, rows, public_key=asked)
        assert not answer and why in str(answer)
    with pytest.raises(CertificateError, match="openssl genpkey"):
        sign(found.certificate, public)
    with pytest.raises(CertificateError, match="public key"):
        verify(signed, found.network, rows, public_key=key)


def test_a_network_of_any_form_is_saved_and_verified(digits, tmp_path):
    """A residual network comes back from files as a graph, under the same hash."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Linear(784, 16), nn.Linear(16, 16), nn.Linear(16, 10)

        def forward(self, x):
            h = self.first(x.flatten(1)).relu()
            return self.last(h + self.second(h).relu())

    (x_train, _), (x, _) = digits
    torch.manual_seed(0)
    network = Residual().eval()
    found = bp.certify(
        network, x, alpha=0.5, loss="disagreement", path="units", trained_on=x_train, progress=False
    )
    bp.save(found.network, tmp_path / "certified", example=x[:1])
    loaded = bp.load(tmp_path / "certified")
    assert found.certificate.chosen["sparsity"] > 0
    assert verify(found.certificate, loaded, x, reference=network)


def test_the_answer_in_words_is_the_answer(found, rows, network):
    """Who reads only the first word reads what ``bool`` says."""
    right = verify(found.certificate, found.network, rows, reference=network)
    wrong = verify(found.certificate, network, rows)
    assert right and str(right).splitlines()[0] == "true"
    assert not wrong and str(wrong).splitlines()[0] == "false"


def test_places_that_the_path_does_not_have_are_all_named(found):
    record = copy.deepcopy(found.certificate.record)
    count = len(record["path"])
    record["certified"] = record["next"]["candidate"] = record["order"][0] = count
    wrong = inconsistent(record)
    for what in ("certified", "next.candidate", "order[0]"):
        assert f"{what} is {count}, of {count} candidates" in wrong
    assert not inconsistent(found.certificate.record)


def test_what_is_signed_does_not_hang_on_the_order_of_keys(found):
    record = found.certificate.record
    assert canonical(dict(reversed(record.items()))) == canonical(record)
    assert canonical({"b": [1, 2], "a": 1, "signature": "x"}) == b'{"a":1,"b":[1,2]}'
