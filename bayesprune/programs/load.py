"""Load model and inference files, and check that they hold what is needed before anything runs on them."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar, cast

from bayesprune.errors import ProgramError
from bayesprune.programs.execute import execute
from bayesprune.programs.find import Program, find
from bayesprune.svi.settings import Recipe

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
class ModelProgram(Program):
    """A model file, loaded.

    Attributes:
        model: ``(train, classes, price) -> GatedModel``.
        epochs: its ``EPOCHS``, by name or glob of the data where it gives several; or 30.
        batch_sizes: its ``BATCH_SIZE``, likewise; or 128.
        recipe: its ``RECIPE``, or the default one.
        inference: its ``INFERENCE``, the name of the inference that suits it, or ``'svi_shrink'``.
        data: its ``data() -> Dataset`` where it brings its own data, or None.
    """

    model: Callable[..., Any]
    epochs: dict[str, int]
    batch_sizes: dict[str, int]
    recipe: Recipe
    inference: str
    data: Callable[[], Any] | None

    def epochs_on(self, data: str) -> int:
        """Passes over the training rows that the program asks for on some data.

        Args:
            data: name of the data.

        Returns:
            The first of `epochs` that matches, or 30.
        """
        return _by_data(self.epochs, data, DEFAULT_EPOCHS)

    def batch_size_on(self, data: str) -> int:
        """Rows a step that the program asks for on some data.

        Args:
            data: name of the data.

        Returns:
            The first of `batch_sizes` that matches, or 128.
        """
        return _by_data(self.batch_sizes, data, DEFAULT_BATCH_SIZE)


def _by_data(table: dict[str, int], data: str, default: int) -> int:
    matching = (count for pattern, count in table.items() if fnmatch.fnmatchcase(data, pattern))
    return next(matching, default)


@dataclass(frozen=True)
class InferenceProgram(Program):
    """An inference file, loaded.

    Attributes:
        infer: ``(gated, train, *, epochs, batch_size, seed, recipe, device, checkpoint, resume, progress) ->
            FitResult``.
    """

    infer: Callable[..., Any]


def load_model(name: str, sha256: str | None = None) -> ModelProgram:
    """Find, run and check a model file.

    Args:
        name: name of a shipped model, or path of a ``.py`` file.
        sha256: what the file must be, compared before it runs; None: as it is.

    Returns:
        The program.

    Raises:
        ProgramError: not found, does not run, or lacks what is needed: file, fault and remedy are named.

    Example:
        >>> load_model("lenet5").name
        'lenet5'
    """
    program = find(name, "models")
    module = execute(program, sha256)
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
        epochs=_counts(program, module, "EPOCHS", DEFAULT_EPOCHS),
        batch_sizes=_counts(program, module, "BATCH_SIZE", DEFAULT_BATCH_SIZE),
        recipe=_constant(program, module, "RECIPE", Recipe()),
        inference=_constant(program, module, "INFERENCE", DEFAULT_INFERENCE),
        data=data,
    )


def load_inference(name: str, sha256: str | None = None) -> InferenceProgram:
    """Find, run and check an inference file.

    Args:
        name: name of a shipped inference, or path of a ``.py`` file.
        sha256: what the file must be, compared before it runs; None: as it is.

    Returns:
        The program.

    Raises:
        ProgramError: as for `load_model`.
    """
    program = find(name, "inference")
    infer = _function(program, execute(program, sha256), "infer", INFER_SHAPE)
    _check_call(program, infer, "infer", INFER_SHAPE, (None, None), INFER_ARGUMENTS)
    return InferenceProgram(**vars(program), infer=infer)


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
    except (TypeError, ValueError) as problem:  # the latter: built in, without a signature
        shown = name if isinstance(problem, ValueError) else f"{name}{inspect.signature(function)}"
        raise ProgramError(
            f"{program.path}: {shown} cannot be called as it is: {problem}. Needed is\n    {shape}"
        ) from None


def _constant(program: Program, module: ModuleType, name: str, default: Value) -> Value:
    value = getattr(module, name, default)
    if not isinstance(value, type(default)):
        raise ProgramError(
            f"{program.path}: {name} = {_shown(value)} is not a {type(default).__name__}. Change or drop it."
        )
    return value


def _shown(value: object) -> str:
    """What a file's own object says of itself, if it does."""
    try:
        return f"{value!r:.60}"
    except Exception:  # the file's own code
        return f"a {type(value).__name__}"


def _counts(program: Program, module: ModuleType, name: str, default: int) -> dict[str, int]:
    """``EPOCHS = 30``, or by data: ``EPOCHS = {"digits": 100, "*": 30}``; ``BATCH_SIZE`` likewise."""
    value = getattr(module, name, default)
    by_data = value if isinstance(value, dict) else {"*": value}
    return {str(data): _positive(program, name, count) for data, count in by_data.items()}


def _positive(program: Program, name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ProgramError(
            f"{program.path}: {name} = {_shown(value)} is not a whole number of at least 1. Change it."
        )
    return value
