"""What cannot be reported is named with its place and a remedy; nothing is written, nothing is changed."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bayesprune.cli import main


def change(folder, **values):
    path = Path(folder, "result.json")
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def change_seed(folder, **values):
    seeds = json.loads(Path(folder, "result.json").read_text())["seeds"]
    seeds[0] |= values
    seeds[0] = {key: value for key, value in seeds[0].items() if value is not None}
    change(folder, seeds=seeds)


def unfinished():
    Path("one/result.json").unlink()


def without_draws():
    Path("one/posterior.nc").unlink()


def damaged_draws():
    Path("one/posterior.nc").write_text("no NetCDF")


def of_another_program():
    Path("one/posterior.nc").unlink()
    foreign = xr.Dataset({"mu": (("chain", "draw"), np.zeros((2, 5)))})
    foreign.to_netcdf("one/posterior.nc", group="posterior", engine="h5netcdf")


def of_a_later_format():
    from bayesprune.posterior.arviz import read, unwrap, wrap, write

    groups = unwrap(read("one/posterior.nc"))
    groups["posterior"].attrs["format"] = 1
    write(wrap(groups), "one/posterior.nc", overwrite=True)
    import h5py

    with h5py.File("one/posterior.nc", "a") as file:
        file["posterior"].attrs["format"] = 99


def one_draw_file_missing():
    Path("two/seed-1/posterior.nc").unlink()


def changed_architecture():
    Path("one/architecture.json").write_text("{}")


CASES = {
    "no folder": (None, ["none"], ["none: there is no such folder", "bayesprune run"]),
    "a folder without a run": (lambda: Path("empty").mkdir(), ["empty"], ["empty: has no result.json"]),
    "unfinished": (
        unfinished, ["one"], ["one: this run has not finished", "bayesprune run --resume --out one"]),
    "no draws": (without_draws, ["one"], ["one: has no posterior.nc"]),
    "damaged draws": (damaged_draws, ["one"], ["one/posterior.nc cannot be read"]),
    "another program's draws": (of_another_program, ["one"], ["one/posterior.nc", "not by bayesprune"]),
    "a later format": (of_a_later_format, ["one"], ["one/posterior.nc has format 99", "update"]),
    "a seed's draws missing": (one_draw_file_missing, ["two"], ["two: has 1 files", "2 seeds"]),
    "a damaged result": (
        lambda: Path("one/result.json").write_text("{"), ["one"],
        ["one/result.json", "cannot be read as JSON"]),
    "a result of something else": (
        lambda: change("one", program=None, epochs="many"), ["one"],
        ["one/result.json", "program is missing", "epochs is 'many'"]),
    "figures missing": (
        lambda: change_seed("one", macs_kept=None, seconds=None), ["one"],
        ["seeds[0].macs_kept is missing", "seeds[0].seconds is missing"]),
    "figures that are none": (
        lambda: change_seed("one", test_nll="low", architecture=[1, "x"]), ["one"],
        ["seeds[0].architecture[1] is 'x', not a number"]),
    "a score that is none": (
        lambda: change_seed("one", test_nll="low"), ["one"], ["seeds[0].test_nll is 'low', not a number"]),
    "a price that is none": (lambda: change("one", price={"fc": "dear"}), ["one"], ["price.fc is 'dear'"]),
    "versions that are none": (lambda: change("one", versions=[1]), ["one"], ["versions is a list of 1"]),
    "numbers beyond any run": (lambda: change_seed("one", macs_kept=1e300), ["one"], ["macs_kept is 1e+300"]),
    "a record that is none": (
        lambda: Path("one/run.json").write_text('{"settings": {"program": 3, "price": "x"}}'), ["one"],
        ["one/run.json: settings.program is 3, not text; settings.price is 'x'"]),
    "lists of different lengths": (
        lambda: change_seed("one", groups=["input"]), ["one"], ["different lengths"]),
    "no seeds": (lambda: change("one", seeds=[]), ["one"], ["seeds is a list of 0, not a list of"]),
    "a changed architecture": (changed_architecture, ["one"], ["one/architecture.json"]),
    "another network": (
        lambda: change_seed("dear", groups=["input", "fc"]), ["one", "dear"],
        ["dear: is of another network than one", "groups input 16, fc 6, not input 16, 1 6"]),
    "another score": (
        lambda: change_seed("dear", test_error_percent=None, test_rmse=1.0), ["one", "dear"],
        ["dear: was scored by test_nll and test_rmse", "report them apart"]),
    "a run twice": (None, ["one", "one"], ["one: given twice"]),
    "a run and its seed": (None, ["two", "two/seed-1"], ["seed-1: given twice"]),
    "several things": (unfinished, ["one", "none"], ["one: this run", "none: there is no such folder"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_named_and_nothing_is_written(case, runs, capsys):
    prepare, folders, messages = CASES[case]
    if prepare:
        prepare()
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert main(["report", *folders, "--out", "page.html"]) == 2
    said = capsys.readouterr().err
    for message in messages:
        assert message in said, said
    assert "Traceback" not in said
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before


def test_a_file_that_cannot_be_written_is_named(runs, capsys):
    assert main(["report", "one", "--out", "dear"]) == 2
    assert "dear: is a folder" in capsys.readouterr().err
    Path("file").write_text("")
    assert main(["report", "one", "--out", "file/page.html"]) == 2
    assert "file" in capsys.readouterr().err
    assert main(["report"]) == 2
    assert "RUN" in capsys.readouterr().err
