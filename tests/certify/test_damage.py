"""A certificate that was damaged in any way is named as such: no other exception, at any place."""

import copy
import json
import random

import pytest

from bayesprune.certify import Certificate, sign, verify
from bayesprune.certify.losses import Selective
from bayesprune.certify.paths import Weights
from bayesprune.errors import BayespruneError, CertificateError

ODD = [
    None, True, -1, 10**18, 0.5, 1e300, "", "\x1b[2J", "0" * 64, [], {}, [[]], {"name": "error"},
    {"name": "selective", "loss": {"name": "selective"}}, {"name": ["error"]}, "\u202e",
]  # fmt: skip
"""Values to put in the place of any other."""
TRIES = 1000


@pytest.fixture(scope="module")
def rows(digits):
    return tuple(part[:150] for part in digits[1])


@pytest.fixture(scope="module")
def certified(certify, rows):
    loss = Selective(0.6, coverage=0.2)
    found = certify(rows=rows, path=Weights(shares=[0.0, 0.5, 0.97]), loss=loss, p_value="betting", alpha=0.2)
    assert found.certificate.record["certified"] == 1
    return found


@pytest.fixture(scope="module")
def record(certified):
    return certified.certificate.record


def places(value, place=()):
    """Every place of a record."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*place, key))


def changed(record, place, do):
    record = copy.deepcopy(record)
    *parents, key = place
    holder = record
    for parent in parents:
        holder = holder[parent]
    do(holder, key)
    return record


def test_any_damage_ends_in_a_named_error_or_in_an_answer(record, certified, network, rows, tmp_path):
    """Places are drawn by a fixed seed; what passes the reader must be printable and verifiable."""
    draw, path = random.Random(0), tmp_path / "certificate.json"
    all_places = [place for place in places(record) if place]
    read = whole = 0
    for _ in range(TRIES):
        place, value = draw.choice(all_places), draw.choice(ODD)
        kind = draw.choice(["put", "put", "drop", "add"])

        def do(holder, key, kind=kind, value=value):
            if kind == "put":
                holder[key] = value
            elif kind == "drop":
                del holder[key]
            elif isinstance(holder, dict):
                holder["more"] = value
            else:
                holder.append(value)

        path.write_text(json.dumps(changed(record, place, do)))
        try:
            found = Certificate.read(path)
        except CertificateError as problem:
            assert str(path) in str(problem)
            continue
        read += 1
        assert str(found).isprintable() or "\n" in str(found)
        assert found.statement == found.record["statement"]
        try:
            whole += bool(verify(found, certified.network, rows, reference=network))
        except BayespruneError:
            continue
    assert 0 < whole < read < TRIES / 3 and read > 30, "most damage is found when the file is read"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("path", 1, "p_value"), "low", r"path\[1\].p_value is 'low', not a number of 0 to 1"),
        (("certified",), 7, "certified is 7, of 3 candidates"),
        (("certified",), 3, "certified is 3, of 3 candidates"),
        (("certified",), None, "certified and network do not name the same"),
        (("network",), None, "certified and network do not name the same"),
        (
            ("path", 0, "parameters_left"),
            10**9,
            r"path\[0\].parameters_left is 1000000000, of \d+ parameters",
        ),
        (("path", 0, "weights_sha256"), "ab" * 31, "not 64 hexadecimal digits"),
        (("path", 0, "weights_sha256"), "AB" * 32, "not 64 hexadecimal digits"),
        (("network", "shapes"), {"1.bias": [[1], [2], [3]]}, "network.shapes.1.bias is of 3"),
        (("order",), [0, 1, 3], r"order\[2\] is 3, of 3 candidates"),
        (("order",), [0, 1, 9], r"order\[2\] is 9, of 3 candidates"),
        (("next",), {"candidate": 3, "alpha": None, "rows": None}, "next.candidate is 3"),
        (("loss", "confidence"), "high", "loss.confidence is 'high'"),
        (("rule",), {"name": "split-fixed-sequence"}, "rule.share is missing"),
        (("reference", "more"), 1, "reference.more is unknown"),
        (("path", 0, "recipe", "share"), 2, r"path\[0\].recipe.share is 2"),
        (("statement",), "true\x1b[8m", "statement is 'true.x1b"),
    ],
)
def test_the_place_the_value_and_the_remedy_are_named(record, tmp_path, place, value, message):
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(changed(record, place, lambda holder, key: holder.__setitem__(key, value))))
    with pytest.raises(CertificateError, match=message) as refused:
        Certificate.read(path)
    assert "was changed" in str(refused.value)


PEM = {
    "no key at all": b"no",
    "empty": b"",
    "another kind of file": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("name", PEM)
def test_damaged_keys_are_named(record, tmp_path, name, network, rows):
    pytest.importorskip("cryptography")
    key = tmp_path / "key.pem"
    key.write_bytes(PEM[name])
    certificate = Certificate(record)
    with pytest.raises(CertificateError, match=r"key\.pem: .*openssl genpkey"):
        sign(certificate, key)
    signed = Certificate({**record, "signature": {"public_key": "00" * 32, "signature": "00" * 64}})
    with pytest.raises(CertificateError, match=r"key\.pem"):
        verify(signed, network, rows, public_key=key)


def test_keys_whose_kind_is_not_known_are_named(record, tmp_path):
    """Any change of a key's bytes."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    whole = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    draw, path = random.Random(0), tmp_path / "key.pem"
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 1, 3])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        try:
            sign(Certificate(record), path)
        except CertificateError as problem:
            assert str(path) in str(problem)
