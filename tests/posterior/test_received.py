"""Files of draws that were received: nothing elsewhere is read, nothing huge is made."""

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import PosteriorError
from bayesprune.posterior import diagnose, read, write
from bayesprune.posterior.arviz import unwrap, wrap


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 3))
    gated = bp.gate(
        network, torch.zeros(1, 2), prior=bp.priors.BernoulliGates(bp.priors.Flattening(3.0)),
        likelihood=bp.Categorical(rows=40),
    )  # fmt: skip
    x, y = torch.randn(40, 2), torch.arange(40) % 3
    result = bp.fit(gated, (x, y), epochs=3, batch_size=20, progress=False)
    path = tmp_path_factory.mktemp("draws") / "posterior.nc"
    return write(result.posterior().to_arviz(20, prior=10, rows=(x, y), observed=True), path)


@pytest.fixture
def file(made, tmp_path):
    path = tmp_path / "posterior.nc"
    path.write_bytes(made.read_bytes())
    return path


def test_what_is_written_is_read(file):
    groups = unwrap(read(file))
    assert set(groups) == {"posterior", "sample_stats", "prior", "posterior_predictive", "log_likelihood",
                           "history", "observed_data", "constant_data"}  # fmt: skip
    diagnose(read(file))


def outside(file):
    secret = file.parent / "secret.bin"
    secret.write_bytes(np.full(120, 0.5, np.float32).tobytes())
    return secret


def external(file, group):
    del group["inclusion_prob:0"]
    group.create_dataset("inclusion_prob:0", (1, 20, 6), "f4", external=[(str(outside(file)), 0, 480)])


def virtual(file, group):
    with h5py.File(file.parent / "other.h5", "w") as other:
        other["a"] = np.full((1, 20, 6), 0.5, np.float32)
    layout = h5py.VirtualLayout((1, 20, 6), "f4")
    layout[:] = h5py.VirtualSource(str(file.parent / "other.h5"), "a", (1, 20, 6))
    del group["inclusion_prob:0"]
    group.create_virtual_dataset("inclusion_prob:0", layout)


def external_link(file, group):
    del group["inclusion_prob:0"]
    group["inclusion_prob:0"] = h5py.ExternalLink("other.h5", "a")


def soft_link(file, group):
    del group["inclusion_prob:0"]
    group["inclusion_prob:0"] = h5py.SoftLink("/prior/gate:0")


def linked_group(file, group):
    group.file["more"] = h5py.ExternalLink("other.h5", "a")


def nested(file, group):
    group.create_group("deeper")


def loose(file, group):
    group.file["loose"] = np.zeros(3)


def compound(file, group):
    group["records"] = np.zeros(3, [("a", "f4"), ("b", "i4")])


REFUSED = {
    external: "'posterior/inclusion_prob:0' keeps its numbers in another file",
    virtual: "'posterior/inclusion_prob:0' keeps its numbers in another file",
    external_link: "'posterior/inclusion_prob:0' is a link to something else",
    soft_link: "'posterior/inclusion_prob:0' is a link to something else",
    linked_group: "'/more' is a link to something else",
    nested: "'posterior/deeper' is no array",
    loose: "'loose' lies outside of a group",
    compound: "'posterior/records' holds",
}


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_nothing_but_arrays_in_the_file_itself(file, change):
    with h5py.File(file, "a") as opened:
        change(file, opened["posterior"])
    with pytest.raises(PosteriorError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: {REFUSED[change]}")


def test_sizes_that_are_announced_are_not_allocated(file):
    with h5py.File(file, "a") as opened:  # nothing is stored of it: a few hundred bytes in the file
        opened["posterior"].create_dataset("rate:0", (1, 20, 10_000_000), "f8", chunks=(1, 1, 1000))
    tracemalloc.start()
    with pytest.raises(PosteriorError, match=r"announces 1,526 MiB of numbers, in a file for which \d\d "):
        read(file)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("posterior", "inclusion_prob:0", np.nan, "posterior/inclusion_prob/0 holds NaN"),
        ("posterior", "inclusion_prob:0", np.inf, "posterior/inclusion_prob/0 holds infinity"),
        ("posterior", "inclusion_prob:0", 1.5, "posterior/inclusion_prob/0 runs from"),
        ("posterior", "gate:0", 2, "posterior/gate/0 runs from"),
        ("sample_stats", "elbo", np.inf, "sample_stats/elbo holds infinity"),
        ("sample_stats", "elbo", np.nan, "sample_stats/elbo holds NaN"),
        ("sample_stats", "macs", -1, "sample_stats/macs runs from -1"),
        ("history", "elbo", np.inf, "history/elbo holds infinity"),
        ("posterior_predictive", "hard_score", np.nan, "posterior_predictive/hard_score holds NaN"),
        ("constant_data", "rounded", -5, "constant_data/rounded runs from -5"),
        ("constant_data", "rows", 0, "constant_data/rows runs from 0"),
        ("log_likelihood", "y", np.nan, "log_likelihood/y holds NaN"),
        ("observed_data", "y", 3, "observed_data/y holds no numbers of 3 classes"),
        ("observed_data", "y", -1, "observed_data/y holds no numbers of 3 classes"),
        ("posterior_predictive", "y", 3, "posterior_predictive/y holds no numbers of 3 classes"),
        ("posterior_predictive", "hard_mean", 1.5, "posterior_predictive/hard_mean holds no probabilities"),
    ],
)
def test_numbers_that_are_none(file, group, name, value, message):
    with h5py.File(file, "a") as opened:
        data = opened[group][name]
        data[(0,) * data.ndim if data.ndim else ()] = value
    with pytest.raises(PosteriorError) as caught:
        read(file)
    assert message in str(caught.value) and str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("group", "name", "message"),
    [
        ("posterior", "inclusion_prob:0", "posterior/inclusion_prob/0 is missing"),
        ("posterior", "gate:0", "posterior/gate/0 is missing"),
        ("sample_stats", "macs", "sample_stats/macs is missing"),
        ("sample_stats", "elbo", "sample_stats/elbo is missing"),
        ("posterior_predictive", "hard_score", "posterior_predictive/hard_score is missing"),
        ("posterior_predictive", "hard_mean", "posterior_predictive/hard_mean is missing"),
        ("posterior_predictive", "mean", "posterior_predictive/mean is missing"),
        ("constant_data", "rounded", "constant_data/rounded is missing"),
        ("history", "elbo", "history/elbo is missing"),
        ("constant_data", "", "there is no group 'constant_data'"),
    ],
)
def test_variables_that_are_missing(made, group, name, message):
    groups = unwrap(read(made))
    if name:
        groups[group] = groups[group].drop_vars(name.replace(":", "/"))
    else:
        del groups[group]
    with pytest.raises(PosteriorError) as caught:
        diagnose(wrap(groups))
    assert message in str(caught.value)


def test_whatever_variable_is_missing_it_is_named_or_not_needed(made):
    whole = unwrap(read(made))
    for group, data in whole.items():
        for name in data.data_vars:
            groups = {**whole, group: data.drop_vars(name)}
            try:
                diagnose(wrap(groups))
            except PosteriorError as problem:
                assert str(name) in str(problem) or "is missing" in str(problem), (group, name)


@pytest.mark.parametrize(("group", "name"), [("sample_stats", "elbo"), ("sample_stats", "macs")])
def test_truth_values_are_no_numbers(made, group, name):
    groups = unwrap(read(made))
    groups[group][name] = groups[group][name] > 0
    with pytest.raises(PosteriorError, match=f"{group}/{name} holds bool, no numbers"):
        diagnose(wrap(groups))


def test_a_group_without_its_variable(file):
    with h5py.File(file, "a") as opened:
        del opened["observed_data"]["y"]
    with pytest.raises(PosteriorError, match="observed_data/y is missing"):
        read(file)


def test_variables_that_nobody_knows(made):
    groups = unwrap(read(made))
    groups["sample_stats"]["more"] = groups["sample_stats"]["macs"]
    groups["extra"] = groups["sample_stats"]
    with pytest.raises(PosteriorError, match="sample_stats/more is not known; the group 'extra' is"):
        diagnose(wrap(groups))


@pytest.mark.parametrize(
    ("group", "change", "message"),
    [
        ("observed_data", lambda part: part.isel(row=slice(30)), "numbers of rows differ: 40 in log_like"),
        ("observed_data", lambda part: part.assign(y=part["y"].astype(float)), "no numbers of 3 classes"),
        (
            "posterior_predictive",
            lambda part: part.assign(hard_mean=part["hard_mean"][..., :2].rename(output="other")),
            "posterior_predictive/mean and hard_mean have different shapes",
        ),
        (
            "log_likelihood",
            lambda part: part.rename(row="other"),
            "log_likelihood/y has the dimensions ('chain', 'draw', 'other'), which do not begin with",
        ),
    ],
)
def test_rows_that_do_not_fit_together(made, group, change, message):
    groups = unwrap(read(made))
    groups[group] = change(groups[group])
    with pytest.raises(PosteriorError) as caught:
        diagnose(wrap(groups))
    assert message in str(caught.value)


@pytest.mark.parametrize("mark", ["one", 1.5, np.nan, -1, 99])
def test_a_format_that_is_none(file, mark):
    with h5py.File(file, "a") as opened:
        opened["posterior"].attrs["format"] = mark
    with pytest.raises(PosteriorError, match=f"has format {mark}"):
        read(file)


def test_a_maker_that_is_no_name(file):
    with h5py.File(file, "a") as opened:
        opened["posterior"].attrs["inference_library"] = [1, 2]
    with pytest.raises(PosteriorError, match=r"was written by \[1 2\], not by bayesprune"):
        read(file)


def test_missing_files_are_said_to_be(tmp_path: Path):
    with pytest.raises(PosteriorError, match="no such file"):
        read(tmp_path / "none.nc")
