"""The benchmark of coverage: files of one's own, and the record that the pages quote."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "benchmarks/coverage.py"


@pytest.fixture(scope="module")
def coverage():
    before = list(sys.path)
    yield runpy.run_path(str(SCRIPT))
    sys.path[:] = before


def table(rows=30, unit=1.0):
    """A target in the middle, which the first column tells, in any unit."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 2, generator=generator)
    y = unit * (x[:, 0] + 0.1 * torch.randn(rows, generator=generator) + 7)
    lines = ["length,price,weight"]
    return lines + [
        f"{1000 * a:.6f},{c:.9g},{b:.6f}" for (a, b), c in zip(x.tolist(), y.tolist(), strict=True)
    ]


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_a_file_of_ones_own_is_answered_in_its_units(coverage, tmp_path, capsys):
    found = []
    for unit in (1.0, 1000.0):
        path = tmp_path / "prices.csv"
        path.write_text("\n".join(table(unit=unit)) + "\n\n")
        settings = ["--splits", "2", "--steps", "40", "--lines", "points", "--out", str(tmp_path / "o.json")]
        assert coverage["main"](["--data", str(path), "--target", "price", *settings]) == 0
        assert "prices" in capsys.readouterr().out
        record = json.loads((tmp_path / "o.json").read_text())
        assert str(tmp_path) not in json.dumps(record)
        found.append(record["results"]["means"][0])
    one, thousand = found
    assert one["rows"] == 27 and one["splits"] == 2
    for key in ("width", "rmse"):
        assert thousand[key] == pytest.approx(1000 * one[key], rel=1e-3)
    for key in ("covered_percent", "nll"):
        assert thousand[key] == pytest.approx(one[key], rel=1e-3, abs=1e-3)


def test_the_target_is_the_last_column_where_none_is_named(coverage, tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("\n".join(table()))
    (x, y), (held, _) = coverage["of_file"](path)(0)
    assert x.shape == (27, 2) and held.shape == (3, 2) and y.abs().max() < 5 and x[:, 1].min() > 3
    first, second = coverage["of_file"](path, "price")(1), coverage["of_file"](path, "price")(2)
    assert not torch.equal(first[1][1], second[1][1])


LINES = table()
BAD = {
    "no file": (None, [], r"prices\.csv: No such file.*Name a file"),
    "binary": (b"\xff\xfe\x00\x01" * 30, [], "no text of comma-separated values.*UTF-8"),
    "few rows": (LINES[:10], [], "9 rows under a line of names, and 20 are the least"),
    "no such target": (LINES, ["--target", "cost"], "line 1: there is no column 'cost'.*price, weight"),
    "a column twice": (["price,price,weight", *LINES[1:]], [], "line 1: column 'price' is there twice"),
    "one column": (["price", *("1" for _ in range(30))], [], "line 1: one column, 'price'"),
    "a short line": ([*LINES[:5], "1,2", *LINES[5:]], [], "line 6: 2 values, and 3 columns are named"),
    "a word": ([*LINES[:5], "1,two,3", *LINES[5:]], [], "line 6, column 'price': 'two' is no number.*Leave"),
    "a hole": ([*LINES[:5], "1,,3", *LINES[5:]], [], "line 6, column 'price': '' is no number"),
    "not a number": ([*LINES[:5], "1,nan,3", *LINES[5:]], [], "line 6, column 'price': 'nan' is no number"),
    "too large": ([*LINES[:5], "1,1e300,3", *LINES[5:]], [], "line 6, column 'price': '1e300' is no number"),
    "a constant target": ([LINES[0], *["1,2,3"] * 30], [], "column 'weight': every value is 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_with_line_and_remedy(case, coverage, tmp_path, capsys):
    lines, arguments, told = BAD[case]
    path = tmp_path / "prices.csv"
    if isinstance(lines, bytes):
        path.write_bytes(lines)
    elif lines is not None:
        path.write_text("\n".join(lines))
    out = tmp_path / "o.json"
    assert coverage["main"](["--data", str(path), *arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and not out.exists()
    assert re.search(told, error), error


def test_the_verdict_is_that_of_coverage_and_of_nats(coverage):
    def row(line, covered=90.0, nll=1.0):
        return {"data": "a", "line": line, "covered_percent": covered, "nll": nll}

    right = coverage["is_right"]
    assert right([row("default")]) and right([row("default", 86.0), row("laplace", nll=1.0)])
    assert not right([row("default", 85.9)]) and not right([row("default", 94.1)])
    assert not right([row("default", nll=1.01), row("laplace", 50.0)])
    assert right([row("default"), row("points", 50.0)])


@pytest.mark.parametrize(("name", "rows"), [("100_rows", 100), ("2000_rows", 2000), ("diabetes", 398)])
def test_the_page_quotes_the_record(name, rows):
    """And that record has the default within 86 to 94 %, at no more nats than Laplace's."""
    record = json.loads((REPOSITORY / f"benchmarks/results/coverage_{name}.json").read_text())
    page = (REPOSITORY / "docs/figures.md").read_text(encoding="utf-8")
    assert record["command"] in page and record["results"]["right"]
    for row in record["results"]["means"]:
        assert row["splits"] == 20 and row["rows"] == rows
        assert f"{row['covered_percent']:.1f} ± {row['covered_percent_std']:.1f} %" in page
        assert f"{row['nll']:.2f} ± {row['nll_std']:.2f}" in page
    ours, laplace = record["results"]["means"]
    assert 86 <= ours["covered_percent"] <= 94 and ours["nll"] <= laplace["nll"]
