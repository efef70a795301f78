"""Parts of a page: the verdict in a word, commands that give the run again, SVG that is its own."""

import shlex
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from bayesprune.cli.run import run_command
from bayesprune.cli.settings import Settings
from bayesprune.posterior.diagnose import Answer, Diagnosis
from bayesprune.report.commands import place, reproduce
from bayesprune.report.headline import figure, verdict
from bayesprune.report.reading import Run
from bayesprune.report.svg import inline_svg
from tests.report.pages import parse

NAMES = ("optimised", "decided", "reproducible", "faithful", "calibrated")


def diagnosis(verdicts, why="because"):
    words = [word.replace("?", "not asked") for word in verdicts.split()]
    return Diagnosis(*(Answer(name, word, (), why, "next") for name, word in zip(NAMES, words, strict=True)))


@pytest.mark.parametrize(
    "verdicts, word, why",
    [
        ("yes yes yes yes yes", "Converged", "nothing that was asked speaks against it"),
        ("yes yes ? ? ?", "Converged", "nothing that was asked"),
        ("no yes ? ? ?", "Not converged", "it is not optimised"),
        ("yes no no yes ?", "Not converged", "it is not decided by evidence and reproducible"),
        ("? yes ? ? ?", "Unknown", "whether it is optimised is missing"),
    ],
)
def test_the_verdict_is_what_the_answers_say(verdicts, word, why):
    value, unit = verdict(diagnosis(verdicts))
    assert value == word and why in unit


def test_a_certain_but_unfaithful_mask_is_called_that():
    why = "The mask is certain but unfaithful: the guide is sure of it"
    assert verdict(diagnosis("yes yes yes no ?", why))[0] == "Certain, but unfaithful"


def test_means_have_a_deviation_and_ranges_have_none():
    assert figure([2.0]) == "2.00" and figure([1.0, 3.0], 1, " s") == "2.0 ± 1.4 s"
    assert figure([3.0, 1.0], 0, " %", alike=False) == "1 to 3 %"


SHORT = {"epochs": 1, "batch_size": 2}


@pytest.mark.parametrize(
    "settings",
    [
        Settings("lenet5", "svi_shrink", "mnist", epochs=3, batch_size=64, seeds=2, seed=5, threads=2),
        Settings("lenet5", "svi_shrink", "digits", price={"conv1": 0.1 + 0.2, "fc*": 8.0}, **SHORT),
        Settings("lenet5", "svi_shrink", "digits", calibration=0.125, device="cpu", **SHORT),
        Settings("vit_small", "svi_shrink", "digits-32", price=12.345678901234567, **SHORT),
        Settings("lenet5", "svi_shrink", "digits", budget={"macs": 0.1, "params": 1 / 3}, **SHORT),
    ],
)
def test_the_command_asks_for_the_same_settings(settings):
    seeds = [{"seed": settings.seed + n} for n in range(settings.seeds)]
    run = Run(Path("x"), {"program": settings.program, "seeds": seeds}, {"settings": settings.to_json()}, ())
    words = shlex.split(reproduce(run))
    assert words[:2] == ["bayesprune", "run"]
    options = run_command.make_context("run", words[2:]).params
    asked = {name: options[name] for name in vars(settings) if name in options}
    assert Settings(**asked) == settings


def test_own_files_are_named_without_their_folders():
    settings = Settings("/home/me/secret/my model.py", "/home/me/own.py", "/data/rows", epochs=1)
    run = Run(
        Path("x"), {"program": "my model", "seeds": [{"seed": 0}]}, {"settings": settings.to_json()}, ()
    )
    command = reproduce(run)
    assert "'./my model.py'" in command and "--inference ./own.py" in command and "--data ./rows" in command
    assert "/home" not in command
    assert run_command.make_context("run", shlex.split(command)[2:]).params["epochs"] == 1


def test_a_folder_is_named_from_here_or_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert place(tmp_path / "here" / "runs" / "a") == "runs/a"
    assert place(tmp_path / "elsewhere" / "b") == "b" and place(Path()) == "here"


def drawn(text):
    figure = Figure(figsize=(3, 2))
    ax = figure.add_subplot()
    ax.imshow([[0, 1], [1, 0]])
    ax.plot([0, 1], [0, 1], color="#0072b2", label=text)
    ax.set(title=text)
    return figure


def test_two_plots_share_no_ids_and_keep_their_own_references():
    first, second = (parse(inline_svg(drawn("a"), number, "what")) for number in (1, 2))
    assert not set(first.attributes("id")) & set(second.attributes("id"))
    for page, prefix in ((first, "p1-"), (second, "p2-")):
        assert all(name.startswith(prefix) for name in page.attributes("id"))
        inside = [ref for ref in page.attributes("href") if ref.startswith("#")]
        clips = [clip for clip in page.attributes("clip-path")]
        assert {ref[1:] for ref in inside} | {c[5:-1] for c in clips} <= set(page.attributes("id"))
        assert [ref[:22] for ref in page.attributes("href") if ref[0] != "#"] == ["data:image/png;base64,"]


def test_text_stays_text_and_settings_stay_as_they_were():
    before = dict(matplotlib.rcParams)
    hostile = '</text></svg><script>x</script> #000000 id="q" href="#r"'
    svg = inline_svg(drawn(hostile), 0, hostile)
    assert dict(matplotlib.rcParams) == before
    page = parse(svg)
    assert not page.broken and not page.of("script") and page.of("svg")[0]["aria-label"] == hostile
    assert hostile in page.text["text"]
    assert "xmlns" not in svg and "http" not in svg
