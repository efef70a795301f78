"""What an import costs, counted in modules; every name that is promised, or written down, is there."""

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.cli.main import COMMANDS, command
from bayesprune.lazy import CallableRoom

REPOSITORY = Path(__file__).parents[1]
HEAVY = (
    "torch",
    "pyro",
    "numpy",
    "scipy",
    "sklearn",
    "pandas",
    "matplotlib",
    "arviz",
    "xarray",
    "h5py",
    "tqdm",
)
ROOMS = sorted(m.name for m in pkgutil.walk_packages(bp.__path__, "bayesprune.") if m.ispkg)
TEXTS = [
    path
    for pattern in (
        "README.md",
        "docs/*.md",
        "bayesprune/**/*.py",
        "models/*.py",
        "inference/*.py",
        "examples/*.py",
    )
    for path in sorted(REPOSITORY.glob(pattern))
]


def _imported_by(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter holds after some code."""
    script = f"import sys\n{code}\nprint(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("words", ["--help", "--version", "list", "copy --help"])
def test_what_only_tells_imports_no_pytorch(words):
    assert _imported_by(f"from bayesprune.cli import main\nmain({words.split()!r})") == set()


def test_the_library_is_imported_without_anything_else():
    assert _imported_by("import bayesprune") == set()


def test_fitting_imports_pytorch_and_pyro_and_none_of_the_slow_rest():
    names = ("gate", "fit", "prune", "evaluate", "Categorical", "data", "save", "selection")
    code = "import bayesprune as bp\n" + "\n".join(f"bp.{name}" for name in names)
    assert _imported_by(code) == {"torch", "pyro", "numpy", "tqdm"}  # tqdm is Pyro's


def test_what_is_imported_late_is_what_a_checker_of_types_sees():
    tree = ast.parse(Path(bp.__file__).read_text(encoding="utf-8"))
    (block,) = [
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert sorted(seen) == sorted(bp._PLACES) == sorted(bp.__all__)
    for name, module in seen.items():
        place = bp._PLACES[name]
        assert module == (
            place or ("bayesprune" if name not in ("certify", "export") else f"bayesprune.{name}")
        ), name


def test_dir_lists_every_name_before_and_after_it_is_asked_for():
    listed = "assert set(bp.__all__) <= set(dir(bp))"
    script = f"import bayesprune as bp\n{listed}\nbp.BayespruneError\n{listed}"
    assert _imported_by(script) == set()


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'bayesprune' has no attribute 'pruen'"):
        _ = bp.pruen
    with pytest.raises(ImportError):
        exec("from bayesprune import pruen")


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_every_room_is_reached_by_dots(room):
    """``bayesprune.a.b.name``, as one writes it after ``import bayesprune``."""
    found = bp
    for part in room.split(".")[1:]:
        import_module(room)
        found = getattr(found, part)
    for name in getattr(import_module(room), "__all__", ()):
        assert getattr(found, name) is getattr(import_module(room), name), f"{room}.{name}"


CALLABLE = {
    "bayesprune.certify": "certify",
    "bayesprune.export": "export",
    "bayesprune.posterior.diagnose": "diagnose",
    "bayesprune.posterior.evidence": "evidence",
}


def test_rooms_named_after_a_function_are_that_function_when_called():
    named = {room: room.rpartition(".")[2] for room in ROOMS}
    same = {room: name for room, name in named.items() if name in getattr(import_module(room), "__all__", ())}
    assert same == CALLABLE
    for room, name in CALLABLE.items():
        module = import_module(room)
        assert isinstance(module, CallableRoom)
        assert inspect.signature(module) == inspect.signature(getattr(module, name))


def test_certify_is_function_and_room_whatever_is_imported_first():
    script = """
from bayesprune.certify.losses import Selective
import bayesprune as bp
assert callable(bp.certify) and bp.certify.losses.Selective is Selective
import bayesprune.certify.verification
assert callable(bp.certify) and callable(bp.certify.verify)
"""
    assert "torch" in _imported_by(script)


def test_a_room_that_is_called_gives_what_its_function_gives(tmp_path):
    network = nn.Sequential(nn.Linear(3, 2))
    bp.export(network, tmp_path / "net")
    assert torch.equal(bp.load(tmp_path / "net")[0].weight, network[0].weight)
    with pytest.raises(bp.errors.CertificateError, match="alpha"):
        bp.certify(network, (torch.zeros(4, 3), torch.zeros(4).long()), alpha=2.0)


def _dotted(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.\[\]/-])((?:bp|bayesprune)(?:\.[A-Za-z_]\w*)+)", text))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_dotted_name_that_is_written_down_is_there(path):
    for name in sorted(_dotted(path.read_text(encoding="utf-8"))):
        found = bp
        for depth, part in enumerate(parts := name.split(".")[1:], start=1):
            if inspect.ismodule(found) and not hasattr(found, part):
                import_module(".".join(("bayesprune", *parts[:depth])))
            assert hasattr(found, part), f"{path.name} names {name}"
            found = getattr(found, part)
            if not inspect.ismodule(found) and not inspect.isclass(found):
                break


def test_names_are_found_in_texts():
    assert _dotted("`bp.certify.losses`, (bayesprune.theory) x.bp.y and bp.fit(gated)") == {
        "bp.certify.losses", "bayesprune.theory", "bp.fit"
    }  # fmt: skip
    assert sum(len(_dotted(path.read_text(encoding="utf-8"))) for path in TEXTS) > 300


def test_every_command_is_listed_and_there():
    context = click.Context(command)
    defined = re.findall(
        r"@click\.command\(\"(\w+)\"",
        "".join(p.read_text() for p in (REPOSITORY / "bayesprune/cli").glob("*.py")),
    )
    assert sorted(defined) == sorted(COMMANDS) == sorted(command.list_commands(context))
    for name, (_, line) in COMMANDS.items():
        found = command.get_command(context, name)
        assert found.name == name and found.help and len(line) < 70
