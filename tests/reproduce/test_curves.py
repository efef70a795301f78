"""Tables of curves: what is learnt on which rows, what is on a front, what is compared at equal sizes."""

import json
import math
import struct
from dataclasses import dataclass, field, replace

import pytest
import torch

import bayesprune as bp
from bayesprune.errors import DataError, RunFolderError, SettingsError
from bayesprune.programs import find
from bayesprune.programs.execute import execute
from bayesprune.reproduce import (
    TABLES,
    Learnt,
    Part,
    as_record,
    curves_as_markdown,
    curves_as_text,
    read_record,
    run_curves,
)
from bayesprune.reproduce.curves import errors_at, fronts
from bayesprune.reproduce.front import error_at, front
from bayesprune.reproduce.setup import Setup

pytestmark = pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
BMRS = TABLES["bmrs"]


def learnt(parameters, error, held_out, **settings):
    return Learnt(
        **{
            "kept": {"fc1": [0, 2]}, "parameters": parameters, "macs": 40, "dense_parameters": 1000,
            "dense_macs": 800, "error": error, "nll": 0.1, "errors": [error + 1, error], "training_macs": 1e6,
            "seconds": 2.0, "processor_seconds": 3.0, "held_out_error": held_out, **settings,
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """A method whose sizes and errors are known: setting → parameters, test error, held-out error."""

    name: str
    of_value: dict[float, tuple[int, float, float]]
    needs: str | None = None
    beside: str | None = None
    asked: list = field(default_factory=list)
    setting: str = "price"

    @property
    def settings(self):
        return tuple(self.of_value)

    def learn(self, setup, value, seed, other):
        self.asked.append((value, seed, setup))
        parameters, error, held_out = self.of_value[value]
        return learnt(parameters, error + seed, held_out)


def curves_of(*methods, **settings):
    return replace(BMRS, **{"methods": methods, "parts": (Part("mlp", "bmrs_mlp", "mnist"),), **settings})


OURS = Planned("ours", {1.0: (400, 2.0, 2.0), 4.0: (100, 4.0, 3.0), 16.0: (120, 3.0, 3.5)})
OTHER = Planned("other", {1.0: (400, 3.0, 2.5), 2.0: (200, 5.0, 3.5)})


def test_a_front_has_no_setting_that_another_one_beats_in_both():
    assert front({1.0: (40.0, 2.0), 2.0: (20.0, 1.9), 4.0: (5.0, 3.0)}) == [4.0, 2.0]
    assert front({1.0: (40.0, 2.0), 2.0: (40.0, 1.0)}) == [2.0]
    assert front({1.0: (10.0, 2.0), 2.0: (20.0, 2.0)}) == [1.0]  # larger, and no better
    assert front({}) == []


def test_errors_are_read_off_between_two_networks_on_the_logarithm_of_their_size():
    at = [(40.0, 2.0), (10.0, 3.0)]
    assert error_at(20.0, at) == pytest.approx(2.5)
    assert error_at(10.0 * 4**0.25, at) == pytest.approx(2.75)
    assert error_at(10.0, at) == 3.0 and error_at(40.0, at) == 2.0
    assert error_at(70.0, at) == 2.0  # a smaller network will do
    assert error_at(9.999, at) is None and error_at(1.0, []) is None


def test_held_out_rows_say_what_is_on_the_front_and_test_rows_what_it_errs(tmp_path):
    found = run_curves(curves_of(OURS, OTHER), tmp_path / "t", seeds=2, quick=True)
    (runs,) = found.runs.values()
    assert fronts(runs) == {"ours": [4.0, 1.0], "other": [2.0, 1.0]}  # by test errors, 16 too
    at = errors_at(runs, 20.0)
    assert at["ours"] == pytest.approx({0: 3.0, 1: 4.0}) and at["other"] == pytest.approx({0: 5.0, 1: 6.0})
    between = 4.0 - 2.0 * math.log(3) / math.log(4)
    assert errors_at(runs, 30.0)["ours"][0] == pytest.approx(between)
    assert set(errors_at(runs, 15.0)) == {"ours"} and errors_at(runs, 9.0) == {}


def test_a_size_that_some_seed_has_not_is_not_compared_at(tmp_path):
    found = run_curves(curves_of(OURS), tmp_path / "t", seeds=2, quick=True)
    (runs,) = found.runs.values()
    runs["ours"][4.0][1] = learnt(200, 4.0, 3.0)
    assert errors_at(runs, 11.0) == {} and set(errors_at(runs, 12.0)) == {"ours"}


def test_a_fifth_of_the_training_rows_is_only_scored_on_and_images_are_of_one_size(tmp_path):
    planned = Planned("ours", {1.0: (400, 2.0, 2.0)})
    run_curves(curves_of(planned), tmp_path / "t", seeds=1, quick=True)
    ((_, _, setup),) = planned.asked
    assert (len(setup.train), len(setup.held_out), len(setup.test)) == (1437 - 287, 287, 360)
    digits = bp.data.digits(32)
    assert torch.equal(setup.test.x, digits.test.x - 0.5)
    rows = torch.cat([setup.train.x, setup.held_out.x]).flatten(1).sum(1).sort().values
    assert torch.equal(rows, (digits.train.x - 0.5).flatten(1).sum(1).sort().values)  # each of them once


def test_what_is_kept_is_not_learnt_again_and_curves_grow(tmp_path):
    planned = Planned("ours", {1.0: (400, 2.0, 2.0), 4.0: (100, 4.0, 3.0)})
    one = run_curves(curves_of(planned), tmp_path / "t", seeds=1, quick=True)
    assert len(planned.asked) == 2
    two = run_curves(curves_of(planned, OTHER), tmp_path / "t", seeds=2, quick=True)
    assert len(planned.asked) == 4
    (before,), (after,) = one.runs.values(), two.runs.values()
    assert after["ours"][1.0][0] == before["ours"][1.0][0] and set(after) == {"ours", "other"}
    with pytest.raises(RunFolderError, match="epochs 10, not 3"):
        run_curves(curves_of(planned), tmp_path / "t", seeds=1, quick=True, epochs=3)


def test_an_interrupted_table_is_equally_far_with_all_methods_and_something_is_left_of_it(tmp_path):
    def stop(found):
        (runs,) = found.runs.values()
        seen.append({m: {v: list(by) for v, by in values.items()} for m, values in runs.items()})
        if len(seen) == 7:
            raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):
        run_curves(curves_of(OURS, OTHER), tmp_path / "t", seeds=2, quick=True, keep=stop)
    assert seen[1] == {"ours": {1.0: [0]}, "other": {1.0: [0]}} and seen[2]["ours"] == {1.0: [0], 4.0: [0]}
    assert seen[6] == {"ours": {1.0: [0, 1], 4.0: [0], 16.0: [0]}, "other": {1.0: [0, 1], 2.0: [0]}}


def test_a_seed_that_was_interrupted_is_not_compared(tmp_path):
    found = run_curves(curves_of(OURS), tmp_path / "t", seeds=2, quick=True)
    (runs,) = found.runs.values()
    del runs["ours"][4.0][1]
    assert errors_at(runs, 20.0)["ours"] == pytest.approx({0: 3.0})


def test_parts_and_methods_are_asked_for_by_name(tmp_path):
    curves = replace(curves_of(OURS, OTHER), parts=BMRS.parts)
    found = run_curves(curves, tmp_path / "t", seeds=1, quick=True, only=("mlp-*", "oth*"))
    assert list(found.runs) == ["mlp-digits-32"] and list(found.runs["mlp-digits-32"]) == ["other"]
    with pytest.raises(SettingsError, match=r"--only resnet: nothing.*mlp-mnist.*ours, other"):
        run_curves(curves, tmp_path / "t", quick=True, only=("resnet",))
    with pytest.raises(SettingsError, match="at least 1"):
        run_curves(curves, tmp_path / "t", seeds=0)


def idx(folder, side=6, rows=40):
    """A data set of two classes in IDX files."""
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        images = bytes(value % 251 for value in range(rows * side * side))
        labels = bytes(row % 2 for row in range(rows))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4I", 0x803, rows, side, side) + images
        )
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, rows) + labels)


def cifar(folder, rows=20):
    folder.mkdir(parents=True)
    record = b"".join(bytes([row % 2]) + bytes((row + k) % 256 for k in range(3072)) for row in range(rows))
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (folder / name).write_bytes(record)


def test_data_that_are_not_there_are_left_out_with_a_line(tmp_path, monkeypatch):
    monkeypatch.delenv("BAYESPRUNE_DATA", raising=False)
    idx(tmp_path / "d/fashion-mnist")
    cifar(tmp_path / "d/cifar-10")
    planned = Planned("ours", {1.0: (400, 2.0, 2.0)})
    curves = replace(curves_of(planned), parts=BMRS.parts)
    found = run_curves(curves, tmp_path / "t", seeds=1, epochs=1, data_dir=tmp_path / "d")
    assert set(found.runs) == {f"{n}-{d}" for n in ("mlp", "lenet5") for d in ("fashion-mnist", "cifar-10")}
    (line,) = found.left_out
    assert line.startswith("mnist is left out: --data-dir has no folder of that name")
    assert line in curves_as_text(found) and str(tmp_path) not in curves_as_markdown(found)
    shapes = {tuple(setup.train.x.shape[1:]) for _, _, setup in planned.asked}
    assert shapes == {(1, 32, 32), (3, 32, 32)}
    monkeypatch.setenv("BAYESPRUNE_DATA", str(tmp_path / "d"))
    again = run_curves(replace(curves, parts=BMRS.parts[2:4]), tmp_path / "t", seeds=1, epochs=1)
    assert set(again.runs) == {"mlp-fashion-mnist", "lenet5-fashion-mnist"}


def test_a_folder_without_any_of_the_data_is_refused(tmp_path):
    idx(tmp_path / "mnist")
    with pytest.raises(DataError, match=r"none of the folders mnist.* itself holds a data set.*link"):
        run_curves(BMRS, tmp_path / "t", data_dir=tmp_path / "mnist")
    with pytest.raises(DataError, match="none of the folders"):
        run_curves(BMRS, tmp_path / "t", data_dir=tmp_path / "nowhere")
    (tmp_path / "mnist/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="test labels"):  # what is there and damaged is not left out
        run_curves(BMRS, tmp_path / "t", data_dir=tmp_path)
    assert not (tmp_path / "t").exists()


def test_curves_are_printed_with_differences_and_read_again_from_their_record(tmp_path):
    curves = curves_of(OURS, OTHER, Planned("peer", {1.0: (1, 1.0, 1.0)}, needs="no-such-peer"))
    found = run_curves(curves, tmp_path / "t", seeds=2, quick=True)
    page = curves_as_markdown(found)
    at = next(line for line in page.splitlines() if line.startswith("| other |"))
    cells = [cell.strip() for cell in at.strip("|").split("|")]
    # 2, 5, 10, 20, 40, 70, 100 %: at 20 % ours errs 3.5, at 40 % 2.5
    assert cells[1:6] == ["–", "–", "–", "5.50 (+2.00 ± 0.00)", "3.50 (+1.00 ± 0.00)"]
    assert "| ours | price 16 | 2 | 3.50 ± 0.00 | no |" in page and "no-such-peer" in page
    assert BMRS.note in page and "10 epochs on digits-32, 2 seeds" in page
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"command": "…", "results": as_record(found)}))
    again = read_record(path, curves)
    assert again.runs == found.runs and curves_as_markdown(again) == page
    with pytest.raises(RunFolderError, match="Run it again"):
        read_record(path, BMRS)
    for damage, told in (
        (
            lambda c: c["runs"]["mlp-digits-32"]["ours"]["1"]["0"].update(macs=None),
            "macs is None|macs is null",
        ),
        (lambda c: c["runs"]["mlp-digits-32"]["ours"]["1"]["0"].update(colour=1), "colour is unknown"),
        (lambda c: c["runs"]["mlp-digits-32"]["ours"].update(much={}), "no number"),
        (lambda c: c.update(epochs={}), "lack a part"),
    ):
        content = json.loads(json.dumps({"results": as_record(found)}))
        damage(content["results"])
        path.write_text(json.dumps(content))
        with pytest.raises(RunFolderError, match=told):
            read_record(path, curves)


def test_divergences_weigh_as_in_the_public_code_and_gates_are_on_the_same_units():
    """Mean over units, then over layers, of a row's objective: rows / (layers · units) nats for each one."""
    digits = bp.data.digits(32)
    for part in BMRS.parts[:2]:
        setup = Setup(execute(find(part.program, "models")), digits.train, digits.test, 10, 1, 64)
        sizes = {g.name: g.size for g in setup.gated(0).groups}
        for method in BMRS.methods[1:5]:
            gated = method.gated(setup, 4.0, 0)
            assert {g.name: g.size for g in gated.groups} == sizes
            for group in gated.groups:
                weight = 4.0 * 1437 / (len(sizes) * group.size)
                assert gated.prior.of(group).weight == pytest.approx(weight)
    assert sizes == {"conv1": 6, "conv2": 16, "fc1": 120, "fc2": 84}


def test_real_methods_score_held_out_rows_at_the_end(tmp_path):
    few = tuple(replace(BMRS.methods[at], settings=(1.0,)) for at in (0, 2, 5))
    found = run_curves(curves_of(*few), tmp_path / "t", seeds=1, quick=True, epochs=2)
    (runs,) = found.runs.values()
    assert set(runs) == {method.name for method in few}
    for by_value in runs.values():
        one = by_value[1.0][0]
        assert len(one.errors) == 2 and one.held_out_error is not None
        assert abs(one.held_out_error - one.error) < 15 and one.held_out_error != one.error
