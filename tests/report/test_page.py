"""The page says what the run's files say, needs nothing else, and can be read by everyone."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import bayesprune as bp
from bayesprune.certify import Certificate
from bayesprune.cli import main
from bayesprune.errors import CertificateError, PosteriorError
from bayesprune.posterior import join, read
from bayesprune.report import Plot, build, read_runs, write_report
from bayesprune.selection.front import FrontFigures, write_front
from tests.report.pages import parse

MOST_BYTES = 5e6


def page_of(*folders, **settings):
    return parse(build(read_runs(folders), **settings))


def result_of(folder):
    return json.loads(Path(folder, "result.json").read_text())


@pytest.mark.parametrize("names", ["one", "two", "one dear"])
def test_the_page_is_whole_and_refers_to_nothing_outside(pages, names):
    text = pages[names]
    assert len(text.encode()) < MOST_BYTES
    page = parse(text)
    assert not page.broken and not page.open
    references = page.attributes("src", "href", "xlink:href", "srcset", "data", "action", "poster")
    assert references and all(ref.startswith(("#", "data:")) for ref in references)
    assert not re.search(r"https?://|url\((?!#)|@import|<script|<link|javascript:", text)
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert {ref[1:] for ref in references if ref.startswith("#")} <= set(ids)
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv"))
    assert "default-src 'none'" in policy  # and a browser would refuse it


def test_everyone_can_read_it(pages):
    text = pages["two"]
    page = parse(text)
    plots = page.of("svg")
    assert len(plots) >= 9
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 40 for svg in plots)
    assert all(image.get("alt") for image in page.of("img"))
    assert len({svg["aria-label"] for svg in plots}) == len(plots)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in pairwise(levels))
    assert page.of("html")[0]["lang"] == "en" and page.of("main") and page.of("nav")
    assert any(a.get("name") == "viewport" and "width=device-width" in a["content"] for a in page.of("meta"))
    assert "prefers-color-scheme: dark" in text
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.of("th"))


def test_plots_take_the_colours_of_the_page(pages):
    text = pages["two"]
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--fit-0)" in drawn and "var(--fit-1)" in drawn and "currentColor" in drawn
    assert not re.search(r"#000000|#0072b2|#d55e00", drawn)
    names = set(re.findall(r"var\((--[\w-]+)\)", text))
    light, dark = text.split("prefers-color-scheme: dark", 1)
    assert all(f"{name}:" in light and f"{name}:" in dark for name in names)
    assert "<text" in drawn and "<metadata" not in drawn


def front(begin):
    cost, error = np.array([begin, begin / 2, begin / 4]), np.array([3.0, 3.5, 9.0])
    ends = np.stack([error - 1, error + 1], 1)
    return FrontFigures(
        cost, np.stack([cost, cost], 1), error, ends, cost, error, "macs", "error_percent", "As it is."
    )


def test_error_against_cost_is_shown_where_a_run_has_it(runs):
    """Runs of before, and of large networks, have none: their pages are as they were."""
    without = page_of("two")
    assert "Could it be smaller still?" not in without.words
    write_front(front(20.0), runs / "two" / "seed-0" / "front.json")
    write_front(front(16.0), runs / "two" / "seed-1" / "front.json")
    page = page_of("two")
    assert len(page.of("svg")) == len(without.of("svg")) + 1
    assert (
        "At 20 % of the dense network's multiply-accumulates seed 0 has a mean error percent of 3"
        in page.words
    )
    assert "within that interval down to 10 %" in page.words and "As it is." in page.words
    assert "seed 1: mean" in page.words  # in the legend
    (runs / "two" / "seed-0" / "front.json").write_text("{}")
    with pytest.raises(PosteriorError, match=r"front\.json"):
        page_of("two")


def test_a_front_that_only_gets_worse_says_so(runs):
    steep = front(20.0)
    steep.error[1:] = 30.0
    write_front(steep, runs / "one" / "front.json")
    assert "every smaller network that was looked at has more than that" in page_of("one").words


def test_the_first_screen_answers_small_good_and_sure(pages, runs):
    page, result = parse(pages["one"]), result_of("one")
    seed, words = result["seeds"][0], page.words
    for figure in (
        f"{seed['parameters_kept_percent']:.2f} %",
        f"{seed['parameters_kept']:,} of {seed['dense_parameters']:,} parameters",
        f"{seed['macs_kept_percent']:.2f} % of the multiply-accumulates of a row: {seed['macs_kept']:,} of",
        f"{seed['test_error_percent']:.2f} %",
        f"{seed['test_nll']:.4f} nats a row",
    ):
        assert figure in words
    assert words.index("How small?") < words.index("How good?") < words.index("How sure?")
    answers = bp.diagnose(read("one/posterior.nc"))
    assert not answers.converged and "Not converged" in words
    cards = [attrs.get("class") for _, attrs in page.tags].index("card")
    tables = [tag for tag, _ in page.tags].index("table")
    assert cards < tables


def test_the_five_answers_are_those_of_diagnose(pages, runs):
    words = parse(pages["two"]).words
    answers = bp.diagnose(join([read(f"two/seed-{seed}/posterior.nc") for seed in (0, 1)]))
    for answer in answers.answers:
        assert f"{answer.question}: {answer.verdict}" in words
        why = answer.why.removeprefix("not asked: ")
        assert why[1:60] in words
        if answer.verdict != "yes":
            assert answer.next[1:60] in words
        assert sum(m.name.split("_")[0][:12] in words for m in answer.measures) == len(answer.measures)


def test_groups_seeds_settings_and_versions_are_tables(pages, runs):
    words, result = parse(pages["two"]).words, result_of("two")
    for number, size in enumerate((16, 6)):
        kept = [seed["architecture"][number] for seed in result["seeds"]]
        count = f"{min(kept)} of {size}" if len(set(kept)) == 1 else f"{min(kept)} to {max(kept)} of {size}"
        assert count in words
    for seed in result["seeds"]:
        assert f"seed {seed['seed']}" in words
        assert f"{seed['test_error_percent']:.2f} %" in words
        assert "-".join(map(str, seed["architecture"])) in words
    mean, spread = result["parameters_kept_percent"], result["parameters_kept_percent_std"]
    assert f"{mean:.2f} ± {spread:.2f} %" in words
    for text in ("squares", "svi_shrink", result["versions"]["torch"], "a1" * 32):
        assert text in words


def test_runs_of_other_settings_are_no_repetitions(pages, runs):
    words = parse(pages["one dear"]).words
    shares = sorted(result_of(name)["parameters_kept_percent"] for name in ("one", "dear"))
    assert "differ in price (the program's own / 3.0)" in words
    assert f"{shares[0]:.2f} to {shares[1]:.2f} %" in words and "±" not in words
    assert "one" in words and "dear" in words


def test_a_seed_of_a_run_has_a_page_of_its_own(runs):
    words = page_of("two/seed-1").words
    assert "little on squares" in words and "1 fit," in words and "seed 1" in words
    assert f"{result_of('two')['seeds'][1]['test_nll']:.4f}" in words


def test_names_are_text_and_never_markup(runs):
    hostile = "<script>alert(1)</script>'\"&{{ 7*7 }}"
    result = result_of("one")
    result.update(program=hostile, data="<img src=x onerror=alert(2)>")
    result["seeds"][0]["groups"] = ["<b>input</b>", "1"]
    result["versions"]["torch"] = "</style><iframe>"
    Path("one/result.json").write_text(json.dumps(result))
    record = json.loads(Path("one/run.json").read_text())
    record["settings"] |= {"program": hostile, "price": {"<u>": 2.0}, "<svg onload=x>": "<em>"}
    Path("one/run.json").write_text(json.dumps(record))
    page = page_of("one")
    assert not page.broken and not page.open
    used = {tag for tag, _ in page.tags}
    assert not used & {"script", "iframe", "b", "u", "em"} and not page.of("img")
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert hostile in page.words and "<img src=x onerror=alert(2)>" in page.words
    assert len(page.of("style")) == 1


def test_a_group_named_like_a_formula_or_markup_is_drawn_as_it_is(runs):
    from bayesprune.posterior.arviz import unwrap, wrap, write

    groups = unwrap(read("one/posterior.nc"))
    for part in groups:
        names = [str(n) for n in (*groups[part].variables, *groups[part].sizes)]
        groups[part] = groups[part].rename({n: n.replace("input", "a$x$<i>") for n in names if "input" in n})
        if "group" in groups[part].coords:
            groups[part] = groups[part].assign_coords(group=["a$x$<i>", "1"])
    write(wrap(groups), "one/posterior.nc", overwrite=True)
    page = page_of("one")
    assert not page.of("i") and not page.broken
    assert any("a$x$<i>" in text for text in page.text["text"])


def test_the_same_run_gives_the_same_page_without_the_machines_paths(pages, made, runs):
    again = write_report([runs / "one"], "a.html").read_text(encoding="utf-8")
    assert again == pages["one"]
    assert str(runs) not in again and str(made) not in again


def test_own_plots_and_an_own_diagnosis_go_in(runs):
    ax = Figure(figsize=(4, 3)).add_subplot()
    ax.plot([0, 1], [2, 3])
    answers = bp.diagnose(read("one/posterior.nc"))
    own = Plot("Evidence against price", "Units above the line pay for themselves.", ax)
    page = page_of("one", more=[own], answers=answers)
    assert "Evidence against price" in page.words
    assert "Evidence against price" in page.of("svg")[-3]["aria-label"] + page.of("svg")[-1]["aria-label"]


def test_the_command_writes_it_once(runs, capsys):
    assert main(["report", "one"]) == 0
    assert "one/report.html" in capsys.readouterr().out
    before = Path("one/report.html").read_bytes()
    assert main(["report", "one"]) == 2
    said = capsys.readouterr().err
    assert "one/report.html" in said and "--force" in said and "Traceback" not in said
    assert Path("one/report.html").read_bytes() == before
    Path("one/report.html").write_text("old")
    assert main(["report", "one", "--force"]) == 0
    assert Path("one/report.html").read_bytes() == before
    assert main(["report", "one", "dear"]) == 0 and Path("report.html").is_file()
    assert not list(runs.rglob("*.tmp"))


def test_a_certificate_beside_the_run_is_repeated(runs):
    assert "What is guaranteed" not in page_of("one").words
    x = torch.randn(400, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    rows = x[:300], (x[:300, 0, 0, 0] + x[:300, 0, 2, 2] > 0).long()
    found = bp.certify(
        bp.load("one"), rows, alpha=0.5, delta=0.05, trained_on=x[300:], progress=False
    ).certificate
    Path("one/certificate").mkdir()
    found.write("one/certificate/certificate.json")
    assert found.certified
    words = page_of("one").words
    assert found.statement in words and found.record["assumes"] in words
    assert "bayesprune certify --verify one/certificate/certificate.json one/certificate one" in words
    assert "A smaller network is certified" in words
    old = {**found.record, "format_version": 1}
    for content, problem in ((json.dumps(old), "is of version 1"), ("{", "cannot be read as JSON")):
        Path("one/certificate/certificate.json").write_text(content)
        words = page_of("one").words
        assert "Not read." in words and f"one/certificate/certificate.json: {problem}" in words
        assert "Move one/certificate away, and then" in words and "bayesprune certify one" in words
        assert found.statement not in words and "A smaller network is certified" not in words
        with pytest.raises(CertificateError, match=problem):
            Certificate.read("one/certificate/certificate.json")
