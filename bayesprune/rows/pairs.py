"""A batch, or a whole data set, as inputs and targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bayesprune.errors import DataError
from bayesprune.rows.arrays import is_array, tensor_of
from bayesprune.rows.call import Call, Inputs
from bayesprune.rows.form import CallRows, Form, RowForm
from bayesprune.rows.nested import Leaf


def pair_of(
    batch: Any, place: str, targets: bool = True, form: Form | None = None
) -> tuple[Inputs, Tensor | None]:
    """Inputs and targets of a batch, or of a whole data set.

    Args:
        batch: a pair; or a dict of inputs by name, and of the targets; where targets are not needed, inputs
            alone will do, or (inputs, None). What a ``TensorDataset`` of several inputs gives, (a, b, y), is
            ((a, b), y).
        place: of the batch, for messages.
        targets: whether they are needed.
        form: of inputs, and the name of the targets; by default what is given, and ``"labels"``.

    Raises:
        DataError: no pair, a dict without the targets, or parts that are no arrays or of another form.
    """
    form = form or Form()
    if isinstance(batch, Call) or (isinstance(batch, Mapping) and not isinstance(form.inputs, RowForm)):
        return _named(batch, place, targets, form)
    if isinstance(batch, Mapping):
        keys = ", ".join(map(repr, list(batch)[:6]))
        raise DataError(
            f"{place}: a dict with the keys {keys}, and rows are pairs (inputs, targets). Take two values "
            "out of it, (d['x'], d['y']), in a DataLoader by collate_fn=; or gate the network with an "
            "example that is a dict."
        )
    parts = list(batch) if isinstance(batch, tuple | list) else [batch]
    arguments = form.inputs.call.positional if isinstance(form.inputs, CallRows) else ()
    if not targets and _are(arguments, parts):
        return form.read(tuple(parts), place), None
    if len(arguments) > 1 and _are(arguments, parts[:-1]) and is_array(parts[-1]):
        parts = [tuple(parts[:-1]), parts[-1]]
    if not targets and len(parts) == 2 and parts[1] is None:
        parts = parts[:1]
    if len(parts) > 2:
        raise DataError(
            f"{place}: {len(parts)} parts, and rows are pairs (inputs, targets). Give several inputs as one "
            "part, ((a, b), y), and an example (a, b); put what belongs to the targets into one tensor, by "
            "torch.stack; in a DataLoader by collate_fn=."
        )
    if not parts or (len(parts) == 1 and targets):
        found = "inputs alone" if parts and is_array(parts[0]) else f"{type(batch).__name__}"
        raise DataError(f"{place}: {found}, and rows are pairs (inputs, targets). Give (x, y).")
    if isinstance(parts[0], list) and not isinstance(form.inputs, CallRows):
        return tensor_of(parts[0], f"{place}: the inputs"), None  # which says what a list must become
    x = form.read(parts[0], place)
    y = tensor_of(parts[1], f"{place}: the targets") if len(parts) == 2 else None
    return x, y


def _are(arguments: tuple[Any, ...], parts: list[Any]) -> bool:
    """Whether parts are the arguments of a network, each built as it is in the example."""
    return bool(arguments) and len(arguments) == len(parts) and all(map(_is_built_as, arguments, parts))


def _is_built_as(tree: Any, value: Any) -> bool:
    """Whether a value has arrays wherever a tree has leaves; what constants it has is not looked at."""
    if isinstance(tree, Leaf):
        return is_array(value)
    if isinstance(tree, dict):
        return isinstance(value, Mapping) and all(_is_built_as(p, value.get(k)) for k, p in tree.items())
    if isinstance(tree, tuple | list):
        built = isinstance(value, tuple | list) and len(value) == len(tree)
        return built and all(map(_is_built_as, tree, value))
    return not is_array(value)


def _named(batch: Any, place: str, targets: bool, form: Form) -> tuple[Inputs, Tensor | None]:
    """Inputs and targets of a dict of both."""
    if isinstance(batch, Call):
        return form.read(batch, place), None
    if targets and form.target not in batch:
        keys = ", ".join(map(repr, list(batch)[:6]))
        raise DataError(
            f"{place}: a dict with the keys {keys}, and rows are pairs (inputs, targets), or dicts with "
            f"targets as {form.target!r}. Take two values out of it, (d['x'], d['y']), in a DataLoader by "
            "collate_fn=; or tell the likelihood the targets' name, target='…'."
        )
    inputs = {name: value for name, value in batch.items() if form.among or name != form.target}
    found = batch.get(form.target)
    y = None if found is None else tensor_of(found, f"{place}: the targets ({form.target!r})")
    return form.read(inputs, place), y
