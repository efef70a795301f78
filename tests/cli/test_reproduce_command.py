"""`bayesprune reproduce`: lists tables, runs one, goes on with it; misuse ends with 2 and a remedy."""

import json
from dataclasses import replace

import pytest

from bayesprune.cli.main import main
from bayesprune.reproduce import TABLES, curves_as_markdown, read_record
from bayesprune.reproduce.tables import OURS

pytestmark = pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A table of one method at one setting, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    table = TABLES["mnist-mlp"]
    one = replace(table, methods=(replace(table.methods[0], settings=(1.0,)),))
    monkeypatch.setitem(TABLES, "mnist-mlp", one)
    return tmp_path


def test_without_a_table_they_are_listed(capsys):
    assert main(["reproduce"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in TABLES) and "11 published rows" in out


def test_a_table_is_run_kept_and_gone_on_with(small, capsys):
    words = ["reproduce", "mnist-mlp", "--quick", "--epochs", "2"]
    assert main([*words, "--seeds", "1"]) == 0
    first = capsys.readouterr().out
    assert f"seed 0, {OURS}" in first and "97-71-33" in first and "1 seed" in first
    kept = small / "tables/mnist-mlp-quick/bayesprune-bernoulli-gates/seed-0.json"
    before = kept.read_bytes(), kept.stat().st_mtime_ns
    assert main([*words, "--quiet"]) == 0  # two seeds, as --quick has it
    assert "seed 1" not in (out := capsys.readouterr().out) and "2 seeds" in out
    assert (kept.read_bytes(), kept.stat().st_mtime_ns) == before
    assert "VIBNet" in (small / "tables/mnist-mlp-quick/table.md").read_text()


def test_curves_are_run_with_a_record_of_all_trainings(small, capsys, monkeypatch):
    curves = TABLES["bmrs"]
    ours, *_, dense = curves.methods
    monkeypatch.setitem(TABLES, "bmrs", replace(curves, methods=(replace(ours, settings=(1.0,)), dense)))
    words = ["reproduce", "bmrs", "--quick", "--epochs", "1", "--seeds", "1", "--only", "mlp-mnist"]
    assert main(words) == 0
    assert "mlp-digits-32, seed 0, dense" in capsys.readouterr().out
    folder = small / "tables/bmrs-quick"
    record = json.loads((folder / "record.json").read_text())
    assert record["command"] == "bayesprune reproduce bmrs --quick --seeds 1 --epochs 1 --only mlp-mnist"
    found = read_record(folder / "record.json", TABLES["bmrs"])
    assert set(found.runs["mlp-digits-32"]) == {OURS, "dense"}
    assert curves_as_markdown(found) == (folder / "table.md").read_text()
    assert str(small) not in (folder / "record.json").read_text()


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["imagenet"], "there are mnist-mlp"),
        (["mnist-mlp", "--quick", "--data-dir", "there"], "drop one"),
        (["mnist-mlp", "--quick", "--epochs", "1", "--out", "."], "choose another --out"),
        (["mnist-mlp", "--seeds", "0"], "--seeds"),
        (["mnist-mlp", "--data-dir", "nowhere"], "nowhere"),
        (["mnist-mlp", "--only", "dense"], "of tables of curves"),
        (["bmrs", "--only", "resnet"], "There are: mlp-mnist"),
        (["bmrs", "--data-dir", "nowhere"], "none of the folders mnist"),
        (["layers"], "cifar-10-binary.tar.gz"),
        (["layers", "--data-dir", "nowhere"], "nowhere"),
    ],
)
def test_misuse_is_told_and_leaves_nothing(small, capsys, monkeypatch, words, remedy):
    monkeypatch.delenv("BAYESPRUNE_DATA", raising=False)
    (small / "mine.txt").write_text("dear")
    assert main(["reproduce", *words]) == 2
    assert remedy in capsys.readouterr().err
    assert [path.name for path in small.iterdir()] == ["mine.txt"]
