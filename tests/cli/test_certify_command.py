"""`bayesprune certify`: rows are kept apart, a network is certified on them, a certificate is verified."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import bayesprune as bp
from bayesprune.certify import TrainingRows, hash_of_rows
from bayesprune.cli.calibration import TRAINING_ROWS, keep_apart

RUN = ("run", "./mine.py", "--epochs", "12", "--quiet")
WITHIN = ("--alpha", "0.3")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"folder": tmp_path_factory.mktemp("finished") / "run"}


@pytest.fixture
def run(cli: Any, finished: dict[str, Path]) -> Path:
    """The folder of a run, a copy of one that is computed once."""
    if not finished["folder"].exists():
        assert cli(*RUN, "--out", str(finished["folder"])).code == 0
    shutil.copytree(finished["folder"], "out")
    return Path("out")


def record_of(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text())
    assert isinstance(record, dict)
    return record


def test_a_tenth_of_the_training_rows_is_kept_apart() -> None:
    data = bp.data.load("digits")
    left, kept = keep_apart(data, 0.1)
    assert kept is not None and (len(left.train), len(kept)) == (1293, 144)
    every = torch.cat([left.train.x, kept.x]).flatten(1).sum(1).sort().values
    assert torch.equal(every, data.train.x.flatten(1).sum(1).sort().values)
    again = keep_apart(data, 0.1)[1]
    assert again is not None and torch.equal(again.x, kept.x) and torch.equal(again.y, kept.y)
    assert left.test is data.test
    assert keep_apart(data, 0.0) == (data, None) and keep_apart(data, 0.0001)[1] is None


def test_a_run_trains_on_the_others_and_leaves_their_digests(run: Path) -> None:
    data = bp.data.load("digits")
    left, kept = keep_apart(data, 0.1)
    known = TrainingRows.read(run / TRAINING_ROWS)
    assert len(known) == 1293 and known.among(left.train.x).all()
    assert kept is not None and known.among(kept.x).sum() == TrainingRows.of(left.train.x).among(kept.x).sum()
    assert record_of(run / "run.json")["settings"]["calibration"] == 0.1


@pytest.mark.parametrize("path", ["magnitude", "magnitude-layers", "units", "posterior", "evidence"])
def test_a_run_is_certified_and_the_certificate_is_true(cli: Any, run: Path, path: str) -> None:
    done = cli("certify", "out", *WITHIN, "--path", path)
    assert done.code == 0, done.out + done.err
    assert done.out.startswith("With probability at least 95 % over the draw of the 144 calibration rows")
    folder = run / "certificate"
    record, kept = record_of(folder / "certificate.json"), keep_apart(bp.data.load("digits"), 0.1)[1]
    assert kept is not None and record["calibration"]["sha256"] == hash_of_rows(kept.x, kept.y)
    assert record["calibration"]["held_out"].startswith("kept apart by the run")
    assert record["certified"] > 0
    for rows in ("out", "digits"):
        checked = cli("certify", "--verify", str(folder / "certificate.json"), str(folder), rows)
        assert checked.code == 0 and checked.out.startswith("true"), checked.out
        assert "candidates made and tested again" in checked.out
    assert cli("certify", "--verify", str(folder), "out", "digits").code == 1  # the network before pruning


def test_a_changed_certificate_is_false(cli: Any, run: Path) -> None:
    assert cli("certify", "out", *WITHIN, "--quiet").out == ""
    file = run / "certificate" / "certificate.json"
    file.write_text(file.read_text().replace('"alpha": 0.3', '"alpha": 0.2'))
    checked = cli("certify", "--verify", str(file), "out/certificate", "digits")
    assert checked.code == 1 and checked.out.startswith("false") and "✗ statement" in checked.out


def test_several_risks_and_several_starts(cli: Any, run: Path) -> None:
    words = ("--loss", "error", "--loss", "disagreement", "--alpha", "0.3", "--alpha", "0.2")
    done = cli("certify", "out", *words, "--rule", "multi-start", "--starts", "3", "--quiet")
    assert done.code == 0, done.err
    record = record_of(run / "certificate" / "certificate.json")
    assert [risk["alpha"] for risk in record["loss"]["risks"]] == [0.3, 0.2]
    assert record["rule"] == {"name": "multi-start", "starts": 3, "weights": None}
    checked = cli("certify", "--verify", str(run / "certificate"), str(run / "certificate"), "digits")
    assert checked.code == 0 and checked.out.startswith("true"), checked.out
    refused = cli("certify", "out", *WITHIN, "--starts", "3", "--out", "a")
    assert refused.code == 2 and "--starts goes with --rule multi-start alone" in refused.err
    refused = cli("certify", "out", "--alpha", "0.1", "--alpha", "0.2", "--out", "a")
    assert refused.code == 2 and "must lie between 0 and 1" in refused.err


def test_an_output_is_named(cli: Any, run: Path) -> None:
    assert cli("certify", "out", *WITHIN, "--output", "0").code == 0
    assert record_of(run / "certificate" / "certificate.json")["output"] == 0
    done = cli("certify", "out", *WITHIN, "--output", "1", "--out", "other")
    assert done.code == 2 and "reads output=1, and the network returns a tensor" in done.err


def test_none_ends_with_1_and_says_what_was_needed(cli: Any, run: Path) -> None:
    done = cli("certify", "out", "--alpha", "0.021", "--out", "none")
    assert done.code == 1 and done.out.startswith("Nothing is guaranteed")
    assert "would have needed alpha ≥" in done.out
    assert [path.name for path in Path("none").iterdir()] == ["certificate.json"]
    assert cli("certify", "--verify", "none", "out", "digits").code == 1


@pytest.mark.filterwarnings("default::bayesprune.errors.CertificateWarning")
def test_other_rows_are_taken_and_those_trained_on_refused(cli: Any, run: Path) -> None:
    test, train = bp.data.load("digits").test, keep_apart(bp.data.load("digits"), 0.1)[0].train
    assert cli("certify", "out", *WITHIN, "--rows", "digits", "--out", "a", "--quiet").code == 0
    assert cli("certify", "--verify", "a", "a", "digits", "--quiet").code == 0
    save_file({"x": test.x[:200].clone(), "y": test.y[:200].clone()}, "rows.safetensors")
    done = cli("certify", "out", *WITHIN, "--rows", "rows.safetensors", "--out", "b")
    assert done.code == 0 and "--verify b/certificate.json b DATA" in done.out
    assert cli("certify", "--verify", "b", "b", "rows.safetensors").code == 0
    assert cli("certify", "--verify", "b", "b", "digits").code == 2
    save_file({"x": train.x[:200].clone(), "y": train.y[:200].clone()}, "trained.safetensors")
    refused = cli("certify", "out", *WITHIN, "--rows", "trained.safetensors", "--out", "c")
    assert refused.code == 2 and "200 of the 200 calibration rows were trained on" in refused.err
    save_file({"x": test.x[:200].clone()}, "unlabelled.safetensors")
    refused = cli("certify", "out", *WITHIN, "--rows", "unlabelled.safetensors", "--out", "c")
    assert refused.code == 2 and "needs labels" in refused.err and not Path("c").exists()
    words = ("--loss", "disagreement", "--rows", "unlabelled.safetensors", "--out", "d")
    assert cli("certify", "out", *WITHIN, *words).code == 0
    assert cli("certify", "--verify", "d", "d", "unlabelled.safetensors").code == 0
    (run / TRAINING_ROWS).unlink()
    warned = cli("certify", "out", *WITHIN, "--rows", "rows.safetensors", "--out", "e")
    assert warned.code == 0 and "cannot be known" in warned.err


def test_a_run_that_kept_no_rows_says_so(cli: Any) -> None:
    assert cli("run", "./mine.py", "--epochs", "1", "--quiet", "--calibration", "0", "--out", "all").code == 0
    assert len(TrainingRows.read(Path("all") / TRAINING_ROWS)) == 1437
    refused = cli("certify", "all")
    assert refused.code == 2 and "--calibration 0.1" in refused.err


def test_a_run_from_before_there_was_calibration_is_resumed_on_all_rows(cli: Any) -> None:
    assert cli("run", "./mine.py", "--epochs", "1", "--quiet", "--calibration", "0", "--out", "old").code == 0
    record = record_of(Path("old/run.json"))
    del record["settings"]["calibration"]
    Path("old/run.json").write_text(json.dumps(record))
    before = Path("old/pruned.safetensors").read_bytes()
    Path("old/result.json").unlink()
    assert cli("run", "./mine.py", "--resume", "--out", "old", "--quiet").code == 0
    assert Path("old/pruned.safetensors").read_bytes() == before
    refused = cli("run", "./mine.py", "--resume", "--out", "old", "--calibration", "0.1")
    assert refused.code == 2 and "calibration: the run has 0.0, this command 0.1" in refused.err


def test_seeds_are_certified_one_by_one(cli: Any) -> None:
    assert cli(*RUN, "--seeds", "2", "--out", "two").code == 0
    refused = cli("certify", "two")
    assert refused.code == 2 and "two/seed-0" in refused.err
    assert cli("certify", "two/seed-1", *WITHIN, "--path", "posterior", "--quiet").code == 0
    where = "two/seed-1/certificate"
    assert cli("certify", "--verify", where, where, "two/seed-1").code == 0


def test_it_is_signed_on_request(cli: Any, run: Path) -> None:
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pkcs8 = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    Path("key.pem").write_bytes(pkcs8)
    info = form.PublicFormat.SubjectPublicKeyInfo
    Path("public.pem").write_bytes(key.public_key().public_bytes(form.Encoding.PEM, info))
    assert cli("certify", "out", *WITHIN, "--sign", "key.pem", "--quiet").code == 0
    checked = cli(
        "certify", "--verify", "out/certificate", "out/certificate", "out", "--public-key", "public.pem"
    )
    assert checked.code == 0 and "✓ signature: signed by the key given" in checked.out
    refused = cli("certify", "out", *WITHIN, "--sign", "mine.py", "--out", "f")
    assert refused.code == 2 and "openssl genpkey" in refused.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("out", "--alpha", "1.2", "--delta", "0"), "delta=0.0 must lie between 0 and 1"),
        (("out", "--alpha", "0.001"), "need 2,995"),
        (("out", "--alpha", "nan"), "alpha=nan"),
        (("out", "--loss", "excess", "--p-value", "binomial"), "for losses of 0 and 1"),
        (("out", "--confidence", "0.8"), "--loss selective alone"),
        (("out", "--loss", "selective", "--confidence", "1.5"), "from 0 to below 1"),
        (("out", "mine.py"), "Name one RUN"),
        (("none",), "no such folder"),
        (("out", "--rows", "none.safetensors"), "cannot be read as safetensors"),
        (("out", "--rows", "numbers"), "neither a known name"),
        (("out", "--out", "out"), "exists already"),
        (("--verify", "out", "out"), "takes three things"),
        (("--verify", "none.json", "out", "digits"), "no such file"),
        (("--verify", "out/run.json", "out", "digits"), "no certificate of this version"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_a_message(
    cli: Any, run: Path, files: Any, words: tuple[str, ...], message: str
) -> None:
    before = files(Path())
    done = cli("certify", *words)
    assert done.code == 2 and message in done.err, done.err
    assert files(Path()) == before


def test_targets_that_are_no_classes_are_named(cli: Any) -> None:
    assert cli("run", "regression_mlp", "--epochs", "1", "--quiet", "--out", "real").code == 0
    refused = cli("certify", "real", *WITHIN)
    assert refused.code == 2 and "real targets" in refused.err
