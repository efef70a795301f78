"""Programs: the files of models/ and inference/, and users' own, found by name or path, and checked.

A model file says what is learnt; an inference file says how. Both are read top to bottom, and loaded by path.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, cast

import bayesprune
from bayesprune.errors import BayespruneError, ProgramError
from bayesprune.svi.settings import Recipe

Kind = Literal["models", "inference"]

MODEL_SHAPE = "def model(train, classes, price):  # returns bayesprune.gate(network, train.x[:1], ...)"
INFER_SHAPE = (
    "def infer(gated, train, *, epochs, batch_size, seed, recipe, device, checkpoint, resume, progress):"
)
INFER_ARGUMENTS = ("epochs", "batch_size", "seed", "recipe", "device", "checkpoint", "resume", "progress")

DEFAULT_EPOCHS = 30
DEFAULT_BATCH_SIZE = 128
DEFAULT_INFERENCE = "svi_shrink"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Program:
    """A program file.

    Attributes:
        name: what it is called by, the file's name without ``.py``.
        path: the file.
        description: first line of its docstring.
        own: whether it is a user's own, not one that ships.
    """

    name: str
    path: Path
    description: str
    own: bool


@dataclass(frozen=True)
class ModelProgram(Program):
    """A model file, loaded.

    Attributes:
        model: ``(train, classes, price) -> GatedModel``.
        epochs: its ``EPOCHS``, or 30.
        batch_size: its ``BATCH_SIZE``, or 128.
        recipe: its ``RECIPE``, or the default one.
        inference: its ``INFERENCE``, the name of the inference that suits it, or ``'svi_shrink'``.
        data: its ``data() -> Dataset`` where it brings its own data, or None.
    """

    model: Callable[..., Any]
    epochs: int
    batch_size: int
    recipe: Recipe
    inference: str
    data: Callable[[], Any] | None


@dataclass(frozen=True)
class InferenceProgram(Program):
    """An inference file, loaded.

    Attributes:
        infer: ``(gated, train, *, epochs, batch_size, seed, recipe, device, checkpoint, resume, progress) ->
            FitResult``.
    """

    infer: Callable[..., Any]


def load_model(name: str) -> ModelProgram:
    """Find, run and check a model file.

    Args:
        name: name of a shipped model, or path of a ``.py`` file.

    Returns:
        The program.

    Raises:
        ProgramError: not found, does not run, or lacks what is needed: file, fault and remedy are named.

    Example:
        >>> load_model("lenet5").name
        'lenet5'
    """
    program = find(name, "models")
    module = _execute(program)
    model = _function(program, module, "model", MODEL_SHAPE)
    _check_call(program, model, "model", MODEL_SHAPE, (None, None, None), ())
    data = (
        _function(program, module, "data", "def data():  # returns a Dataset")
        if hasattr(module, "data")
        else None
    )
    return ModelProgram(
        **vars(program),
        model=model,
        epochs=_positive(program, module, "EPOCHS", DEFAULT_EPOCHS),
        batch_size=_positive(program, module, "BATCH_SIZE", DEFAULT_BATCH_SIZE),
        recipe=_constant(program, module, "RECIPE", Recipe()),
        inference=_constant(program, module, "INFERENCE", DEFAULT_INFERENCE),
        data=data,
    )


def load_inference(name: str) -> InferenceProgram:
    """Find, run and check an inference file.

    Args:
        name: name of a shipped inference, or path of a ``.py`` file.

    Returns:
        The program.

    Raises:
        ProgramError: as for `load_model`.
    """
    program = find(name, "inference")
    infer = _function(program, _execute(program), "infer", INFER_SHAPE)
    _check_call(program, infer, "infer", INFER_SHAPE, (None, None), INFER_ARGUMENTS)
    return InferenceProgram(**vars(program), infer=infer)


def find(name: str, *kinds: Kind) -> Program:
    """Find a program file, without running it.

    Args:
        name: name of a shipped program, or path of a ``.py`` file.
        kinds: where names are looked up; by default both.

    Returns:
        The program.

    Raises:
        ProgramError: there is none, with the nearest names.
    """
    kinds = kinds or ("models", "inference")
    path = Path(name).expanduser()
    if path.suffix == ".py" or path.name != name:
        return _own(name, path, kinds)
    shipped = {program.name: program for kind in kinds for program in available(kind)}
    if name in shipped:
        return shipped[name]
    what = " or ".join({"models": "model", "inference": "inference"}[kind] for kind in kinds)
    near = difflib.get_close_matches(name, shipped, n=2, cutoff=0.5)
    if near:
        hint = f"Did you mean {' or '.join(near)}?"
    elif path.with_suffix(".py").is_file():
        hint = f"For your own file, write ./{name}.py."
    else:
        hint = f"There are: {', '.join(shipped) or 'none'}."
    raise ProgramError(f"No {what} is called {name!r}. {hint} 'bayesprune list' shows them all.")


def available(kind: Kind) -> list[Program]:
    """All programs of a kind that ship.

    Args:
        kind: ``'models'`` or ``'inference'``.

    Returns:
        The programs, by name.
    """
    files = sorted(_folder(kind).glob("*.py"))
    return [Program(path.stem, path, _description(path), own=False) for path in files if path.stem[0] != "_"]


def run_own(program: Program, what: str, call: Callable[[], Any]) -> Any:
    """Run a function of a program; a fault in a user's own file is told as such, with its line.

    Args:
        program: whose function it is.
        what: the function's name.
        call: runs it.

    Returns:
        What the function returns.

    Raises:
        ProgramError: an exception in a user's own file. Errors of bayesprune, and faults of shipped
            programs, pass.
    """
    try:
        return call()
    except (BayespruneError, OSError, MemoryError):
        raise
    except Exception as problem:
        if not program.own or type(problem).__name__ == "OutOfMemoryError":
            raise
        raise _fault(program, f"{what}() failed", problem) from problem


def _folder(kind: Kind) -> Path:
    """In a wheel the programs lie inside the package, in a checkout beside it."""
    package = Path(bayesprune.__file__).parent
    inside, beside = package / kind, package.parent / kind
    return beside if (package.parent / "pyproject.toml").is_file() and beside.is_dir() else inside


def _own(name: str, path: Path, kinds: tuple[Kind, ...]) -> Program:
    if not path.is_file():
        shipped = {program.name: program for kind in kinds for program in available(kind)}
        near = difflib.get_close_matches(path.stem, shipped, n=1, cutoff=0.6)
        hint = f" For the one that ships, write {near[0]}." if near else ""
        raise ProgramError(f"{name}: there is no such file. Check the path.{hint}")
    return Program(path.stem, path.resolve(), _description(path), own=True)


def _description(path: Path) -> str:
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except (SyntaxError, ValueError, OSError):
        return ""
    return (docstring or "").strip().split("\n")[0]


def _execute(program: Program) -> ModuleType:
    """Run the file once, as a module of its own."""
    name = f"_bayesprune_program_{program.path.parent.name}_{program.name}".replace(".", "_")
    spec = importlib.util.spec_from_file_location(name, program.path)
    if spec is None or spec.loader is None:
        raise ProgramError(f"{program.path}: cannot be loaded as Python. Programs are .py files.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    if program.own and str(program.path.parent) not in sys.path:
        sys.path.insert(
            0, str(program.path.parent)
        )  # as 'python mine.py' does: the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    except BayespruneError:
        raise
    except (Exception, SystemExit) as problem:
        sys.modules.pop(name, None)
        if not program.own:
            raise
        raise _fault(program, "the file does not run", problem) from problem
    return module


def _fault(program: Program, what: str, problem: BaseException) -> ProgramError:
    if isinstance(problem, SyntaxError) and problem.filename == str(program.path):
        line: int | None = problem.lineno
    else:
        frames = traceback.extract_tb(problem.__traceback__)
        line = next((f.lineno for f in reversed(frames) if f.filename == str(program.path)), None)
    place = f"{program.path}, line {line}" if line else str(program.path)
    message = str(getattr(problem, "msg", None) or problem).strip() or "no message"
    return ProgramError(
        f"{place}: {what}: {type(problem).__name__}: {message}\n"
        "Mend the file; 'bayesprune --debug run …' shows the whole traceback."
    )


def _function(program: Program, module: ModuleType, name: str, shape: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if not callable(function):
        found = (
            f"has no function {name}()"
            if function is None
            else f"{name} is {type(function).__name__}, no function"
        )
        raise ProgramError(
            f"{program.path}: {found}. A file for this place needs\n    {shape}\n"
            "'bayesprune copy lenet5 mine.py' and 'bayesprune copy svi_shrink my_inference.py' hand out "
            "complete ones."
        )
    return cast(Callable[..., Any], function)


def _check_call(
    program: Program,
    function: Callable[..., Any],
    name: str,
    shape: str,
    positional: tuple[None, ...],
    keywords: tuple[str, ...],
) -> None:
    try:
        inspect.signature(function).bind(*positional, **dict.fromkeys(keywords))
    except TypeError as problem:
        raise ProgramError(
            f"{program.path}: {name}{inspect.signature(function)} cannot be called as it is: {problem}. "
            f"Needed is\n    {shape}"
        ) from None


def _constant(program: Program, module: ModuleType, name: str, default: Value) -> Value:
    value = getattr(module, name, default)
    if not isinstance(value, type(default)):
        raise ProgramError(
            f"{program.path}: {name} = {value!r} is not a {type(default).__name__}. Change or drop it."
        )
    return value


def _positive(program: Program, module: ModuleType, name: str, default: int) -> int:
    value = _constant(program, module, name, default)
    if isinstance(value, bool) or value < 1:
        raise ProgramError(
            f"{program.path}: {name} = {value!r} is not a whole number of at least 1. Change it."
        )
    return value
