import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bayesprune as bp
from bayesprune.errors import ProgramError, SettingsError
from bayesprune.programs import available, find, load_inference, load_model, run_own

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a program into an empty working folder; returns its path as a user would type it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())

    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return f"./{name}"

    return write


MODEL = '''"""What mine does.

More about it.
"""
def model(train, classes, price):
    return classes
'''
INFER = """
def infer(gated, train, *, epochs, batch_size, seed, recipe, device, checkpoint, resume, progress): ...
"""


def test_shipped_programs_are_found_and_described() -> None:
    models, inference = available("models"), available("inference")
    assert {"lenet5", "lenet_300_100"} <= {program.name for program in models}
    assert "svi_shrink" in {program.name for program in inference}
    assert all(program.description and not program.own for program in models + inference)


@pytest.mark.parametrize("program", [program.name for program in available("models")])
def test_every_shipped_model_loads(program: str) -> None:
    loaded = load_model(program)
    assert loaded.epochs_on("digits") >= 1
    assert loaded.batch_size_on("mnist") >= 1
    assert find(loaded.inference, "inference").name == loaded.inference


@pytest.mark.parametrize("program", [program.name for program in available("inference")])
def test_every_shipped_inference_loads(program: str) -> None:
    assert callable(load_inference(program).infer)


def test_own_model_with_defaults(write: Write) -> None:
    program = load_model(write("mine.py", MODEL))
    assert (program.name, program.description, program.own) == ("mine", "What mine does.", True)
    assert (program.epochs_on("mnist"), program.batch_size_on("mnist"), program.inference) == (
        30,
        128,
        "svi_shrink",
    )
    assert program.recipe == bp.Recipe()
    assert program.data is None
    assert program.model(None, 10, None) == 10


def test_own_model_with_constants(write: Write) -> None:
    constants = (
        "import bayesprune as bp\nEPOCHS = 3\nBATCH_SIZE = 16\nRECIPE = bp.Recipe(learning_rate=0.5)\n"
    )
    program = load_model(
        write("mine.py", constants + 'INFERENCE = "enumerate_exact"\n' + MODEL + "def data(): ...\n")
    )
    assert (program.epochs_on("mnist"), program.batch_size_on("mnist"), program.inference) == (
        3,
        16,
        "enumerate_exact",
    )
    assert program.recipe.learning_rate == 0.5
    assert program.data is not None


def test_epochs_may_depend_on_the_data(write: Write) -> None:
    program = load_model(write("mine.py", 'EPOCHS = {"digits": 100, "emnist*": 20}\n' + MODEL))
    assert [program.epochs_on(name) for name in ("digits", "emnist-letters", "mnist")] == [100, 20, 30]


def test_a_file_is_read_anew_each_time_and_may_import_its_neighbours(write: Write) -> None:
    write("neighbour_of_mine.py", "VALUE = 7\n")
    path = write(
        "mine.py", "from neighbour_of_mine import VALUE\n" + MODEL.replace("return classes", "return VALUE")
    )
    assert load_model(path).model(None, 10, None) == 7
    write("mine.py", MODEL)
    assert load_model(path).model(None, 10, None) == 10


def test_dataclasses_with_postponed_annotations_work(write: Write) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    text += "@dataclass\nclass A:\n    x: int = 1\n"
    assert load_model(write("mine.py", text + MODEL.split('"""')[2])).model(None, 3, None) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (1,\n", r"mine\.py, line 1: the file does not run: SyntaxError"),
        ("import torch\n\nimport no_such_package\n", r"line 3: the file does not run: ModuleNotFoundError"),
        ("x = 1\ny = x / 0\n", r"line 2: the file does not run: ZeroDivisionError"),
        ("import sys\nsys.exit()\n", r"line 2: the file does not run: SystemExit"),
        ("x = 1\n", r"has no function model\(\).*\n.*def model\(train, classes, price\)"),
        ("model = 3\n", "model is int, no function"),
        ("def model(train): ...\n", r"model\(train\) cannot be called"),
        ("def model(train, classes, price, more): ...\n", "missing a required argument: 'more'"),
        (MODEL + "EPOCHS = 0\n", r"EPOCHS = 0 is not a whole number of at least 1"),
        (MODEL + "EPOCHS = 'three'\n", r"EPOCHS = 'three' is not a whole number"),
        (MODEL + "EPOCHS = {'digits': 0}\n", r"EPOCHS = 0 is not a whole number"),
        (MODEL + "BATCH_SIZE = 2.5\n", r"BATCH_SIZE = 2\.5 is not a"),
        (MODEL + "RECIPE = {}\n", r"RECIPE = \{\} is not a Recipe"),
        (MODEL + "data = 3\n", "data is int, no function"),
    ],
)
def test_what_a_model_lacks_is_named_with_file_and_remedy(write: Write, text: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message) as caught:
        load_model(write("mine.py", text))
    assert "mine.py" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MODEL, r"has no function infer\(\)"),
        ("def infer(gated, train, *, epochs): ...\n", "unexpected keyword argument"),
        (INFER.replace("*,", "extra, *,"), "missing a required argument: 'extra'"),
    ],
)
def test_what_an_inference_lacks_is_named(write: Write, text: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        load_inference(write("mine.py", text))


def test_an_inference_may_take_anything(write: Write) -> None:
    assert load_inference(write("mine.py", "def infer(gated, train, **settings): ...\n")).name == "mine"
    assert load_inference(write("mine.py", INFER)).name == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lenet", "Did you mean lenet"),
        ("LeNet5", "Did you mean lenet5"),
        ("quite-different", "There are: .*lenet5"),
        ("mine", r"write \./mine\.py"),
        ("lenet5.py", "For the one that ships, write lenet5"),
        ("./none.py", "there is no such file"),
        ("svi_shrink", "No model is called 'svi_shrink'"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(write: Write, name: str, message: str) -> None:
    write("mine.py", MODEL)
    with pytest.raises(ProgramError, match=message):
        find(name, "models")


def test_a_fault_in_an_own_file_is_told_with_its_line(write: Write) -> None:
    program = load_model(
        write("mine.py", "def model(train, classes, price):\n    x = [1]\n    return x[5]\n")
    )
    with pytest.raises(
        ProgramError, match=r"mine\.py, line 3: model\(\) failed: IndexError: list index out of range"
    ):
        run_own(program, "model", lambda: program.model(None, 10, None))


def test_errors_of_the_library_pass_unchanged(write: Write) -> None:
    program = load_model(write("mine.py", MODEL))

    def fail() -> None:
        raise SettingsError("as it was")

    with pytest.raises(SettingsError, match="as it was"):
        run_own(program, "model", fail)


def test_faults_of_shipped_programs_pass_unchanged() -> None:
    with pytest.raises(ZeroDivisionError):
        run_own(find("lenet5"), "model", lambda: 1 / 0)


def test_nothing_is_left_of_a_file_that_does_not_run(write: Write) -> None:
    before = set(sys.modules)
    with pytest.raises(ProgramError):
        load_model(write("mine.py", "1 / 0\n"))
    assert set(sys.modules) == before
