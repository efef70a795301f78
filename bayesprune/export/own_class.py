"""A saved network put into an instance of the user's own class."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import CheckpointError, UnsupportedNetworkError
from bayesprune.export.architecture import example_of
from bayesprune.export.read_back import check_same_tensors, held
from bayesprune.rows.call import Call
from bayesprune.rows.nested import taken_apart
from bayesprune.structure.copying import Foreign, copy_of
from bayesprune.structure.graph.capture.bind import alike, are_certain, double, in_double
from bayesprune.structure.graph.capture.capture import find_tensor
from bayesprune.structure.graph.capture.masks import masks_as_given
from bayesprune.structure.graph.own.excerpt import Excerpt
from bayesprune.structure.graph.own.noted import Found, noted_sizes, without_shortcuts
from bayesprune.structure.graph.own.signs import Shapes
from bayesprune.structure.layers import SIZES
from bayesprune.structure.plain import PlainGraph, place_of, tensor_names
from bayesprune.structure.pretrained import configure_loaded_, refuse_parts_
from bayesprune.structure.running import DrawingAnyOrder, run_as_called
from bayesprune.structure.select import selected


def sizes_of(network: nn.Module) -> dict[str, dict[str, Any]]:
    """What a network's layers note of their sizes.

    Args:
        network: any module.

    Returns:
        Name of the layer → attribute → a whole number, or a list of them.
    """
    found = {}
    for name, layer in network.named_modules():
        attributes = _attributes(layer)
        if attributes:
            values = {attribute: getattr(layer, attribute) for attribute in attributes}
            found[name] = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
    return found


def put_into_(
    own: nn.Module,
    saved: nn.Module,
    sizes: Mapping[str, Any],
    folder: Path,
    inside: Mapping[str, PlainGraph] | None = None,
) -> None:
    """Give a network of the user's class the tensors and sizes of a saved one, and eval mode.

    Args:
        own: the user's network; as it was if this raises.
        saved: the same network as plain layers or as its operations, in eval mode.
        sizes: as `sizes_of` gives them.
        folder: where it was saved, for messages.
        inside: name of a module that ran as a graph → that graph, over tensors of the saved network.

    Raises:
        CheckpointError: it has other parameters or buffers than the saved network.
        UnsupportedNetworkError: with these sizes it fails, or computes something else; or a whole section was
            removed, which it still runs.
    """
    gone = _check_names(own, saved, folder)
    graphs = [Excerpt(name, graph, _below(name, gone)) for name, graph in (inside or {}).items()]
    trial = copy_of(own)
    _fill_(trial, saved, sizes, folder)
    for graph in graphs:
        graph.set_(trial)
    inputs = example_of(folder, rows=3, dtype=place_of(saved)[1])
    dense = {name: tuple(tensor.shape) for name, tensor in own.state_dict(keep_vars=True).items()}
    drawing = DrawingAnyOrder if gone else nullcontext
    configured = not gone and _configured_(trial, saved, dense, inputs, folder)
    shapes = {name: parameter.shape for name, parameter in own.named_parameters()}
    with drawing():
        found = Found(()) if configured else _followed(trial, saved, inputs, shapes, gone)
    for change in found.changes:
        change.set_(trial)
    whole = without_shortcuts(trial)
    for shortcut in whole:
        shortcut.set_(trial)
    if gone & _names(trial):
        parts = ", ".join(sorted({name.rpartition(".")[0] or name for name in gone}))
        raise UnsupportedNetworkError(
            f"{folder}: has lost {parts} altogether, which {type(own).__name__} still runs, and nothing "
            "that could stand in for it makes it compute the same. Load without into=, which gives a module "
            "of the same parameter names."
        )
    with drawing():
        _check_outputs(trial, saved, inputs, folder)
    with Foreign(own) as original:
        _outputs(trial, inputs, training=False)
    original.check()
    _check_runs(trial, inputs, folder)
    both = tensor_names(saved) & tensor_names(trial)
    expected, actual = ({n: t for n, t in held(of).items() if n in both} for of in (saved, trial))
    check_same_tensors(expected, actual, str(folder))
    _fill_(own, saved, sizes, folder)
    for change in (*graphs, *found.changes, *whole):
        change.set_(own)
    if gone:
        refuse_parts_(own, gone)
    else:
        _configured_(own, saved, dense, inputs, folder)
    own.eval()


def _configured_(
    own: nn.Module, saved: nn.Module, dense: dict[str, tuple[int, ...]], inputs: Call, folder: Path
) -> bool:
    """Let a config say the sizes that a network has now, or ``save_pretrained`` that none does."""

    def same() -> bool:
        try:
            _check_outputs(own, saved, inputs, folder)
        except UnsupportedNetworkError:
            return False
        return True

    return configure_loaded_(own, dense, same)


def _attributes(layer: nn.Module) -> list[str]:
    """The sizes that a layer of ``torch.nn``, or of a subclass of one, notes; none of any other module."""
    homes = {base.__module__ for base in type(layer).__mro__ if base is not nn.Module}
    is_layer = any(home.startswith("torch.nn.modules") and not home.endswith("container") for home in homes)
    return [name for name in SIZES if is_layer and name in vars(layer)]


def _below(module: str, names: Collection[str]) -> frozenset[str]:
    """Of some names those in a module, under the names that they have there."""
    return frozenset(name.removeprefix(f"{module}.") for name in names if name.startswith(f"{module}."))


def _names(network: nn.Module) -> set[str]:
    """Of what belongs to the network's class, constants of its graphs left out."""
    return set(network.state_dict(keep_vars=True))


def _kind(saved: nn.Module) -> str:
    """Class of the network that was saved."""
    return saved._bayesprune_program.kind if isinstance(saved, PlainGraph) else type(saved).__name__


def _check_names(own: nn.Module, saved: nn.Module, folder: Path) -> set[str]:
    """Both have the same tensors, but for those that went with their sections, which are returned."""
    missing, strange = _names(saved) - _names(own), _names(own) - _names(saved)
    if strange and not missing and _kind(saved) == type(own).__name__:
        return strange
    selections = sorted(name for name, module in saved.named_modules() if selected(module))
    if selections and not strange and missing == {f"{name}.index" for name in selections}:
        raise UnsupportedNetworkError(
            f"{folder}: reads a selection of its inputs or features ({', '.join(selections)}), and "
            f"{type(own).__name__} reads all of them: it cannot hold this network. Load without into=, which "
            "gives plain layers; or gate with inputs=False."
        )
    if missing or strange:
        told = [f"{what} {', '.join(map(repr, sorted(n)[:4]))}" for what, n in
                (("it has no", missing), ("the saved one has no", strange)) if n]  # fmt: skip
        raise CheckpointError(
            f"{folder}: was not saved from a {type(own).__name__} like this one: {'; '.join(told)}. Pass an "
            "instance of the class that was pruned, built with the same arguments; or load without into=."
        )
    return set()


def _fill_(own: nn.Module, saved: nn.Module, sizes: Mapping[str, Any], folder: Path) -> None:
    given = tensor_names(own)
    for name in sorted(tensor_names(saved) & given):
        mine, theirs = find_tensor(own, name), find_tensor(saved, name)
        assert mine is not None and theirs is not None, name
        mine.grad = None
        mine.data = theirs.detach().clone()
        if isinstance(mine, nn.Parameter):
            mine.requires_grad_(theirs.requires_grad)
    layers = dict(own.named_modules())
    for name, values in sizes.items():
        layer = layers.get(name)
        known = set(_attributes(layer)) if layer is not None else set()
        for attribute, value in values.items() if isinstance(values, dict) else ():
            if attribute not in known:
                continue
            whole = isinstance(value, list) and all(type(size) is int for size in value)
            if type(value) is not int and not whole:
                raise CheckpointError(
                    f"{folder}: says {attribute}={value!r} of layer {name!r}, which is no size. The file was "
                    "changed; export the network again."
                )
            setattr(layer, attribute, tuple(value) if whole else value)


def _followed(trial: nn.Module, saved: nn.Module, inputs: Call, before: Shapes, gone: set[str]) -> Found:
    """What makes the class compute what the saved network does, as far as that is found."""

    def run(network: nn.Module, training: bool) -> list[Tensor]:
        return _outputs(network, inputs, training)

    both = dict.fromkeys((False, True), saved)
    return noted_sizes(copy_of(trial), both, saved, run, before, gone)


def _check_outputs(own: nn.Module, saved: nn.Module, inputs: Call, folder: Path) -> None:
    """The class does with these sizes what the saved network does, in both modes."""
    reference = copy_of(saved)
    for training in (False, True):
        expected = _outputs(reference, inputs, training)
        try:
            actual = _outputs(own, inputs, training)
        except Exception as problem:  # whatever the user's forward does
            raise UnsupportedNetworkError(
                f"{folder}: {type(own).__name__} cannot hold the sizes of this network: "
                f"{type(problem).__name__}{_place(problem)}: {str(problem).partition(chr(10))[0]}. A size "
                "must be written down there: read it from the tensor (x.flatten(1), x.shape) or from the "
                "parameter. Or load without into=, which gives a module of the same parameter names."
            ) from problem
        same = alike(actual, expected)
        if same and not are_certain(actual, expected):
            same = _alike_in_double(own, reference, inputs, training)
        if not same:
            raise UnsupportedNetworkError(
                f"{folder}: {type(own).__name__} computes something else with the sizes of this network than "
                "the network that was saved: a size must be kept as a number (such as a count of heads), or "
                "the class has changed. Read it from a parameter; or load without into=, which gives a "
                "module of the same parameter names."
            )


def _alike_in_double(own: nn.Module, saved: nn.Module, inputs: Call, training: bool) -> bool:
    """Whether both compute the same in float64, or do not run in that."""
    twice = inputs.mapped(double)
    with in_double(own, saved):
        try:
            return alike(_outputs(own, twice, training), _outputs(saved, twice, training))
        except Exception:  # whatever a forward says to another type
            return True


def _check_runs(own: nn.Module, inputs: Call, folder: Path) -> None:
    """It runs as anybody runs it."""
    try:
        run_as_called(own, inputs)
    except Exception as problem:  # whatever a forward says to a stand-in
        raise UnsupportedNetworkError(
            f"{folder}: {type(own).__name__} does not run with what stands in for the sections that are "
            f"gone ({type(problem).__name__}: {str(problem).partition(chr(10))[0]}). Load without into=, "
            "which gives a module of the same parameter names."
        ) from problem


def _outputs(network: nn.Module, inputs: Call, training: bool) -> list[Tensor]:
    """What comes out in a mode; statistics, modes and random numbers are afterwards what they were."""
    modes = [(module, module.training) for module in network.modules()]
    state = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        network.train(training)
        with torch.no_grad(), torch.random.fork_rng(), masks_as_given():
            torch.manual_seed(0)
            return taken_apart(inputs.clone().on(network))[0]
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, value in state:
            buffer.copy_(value)


def _place(problem: Exception) -> str:
    """The last line of the user's code, and not of PyTorch's."""
    frames = [f for f in traceback.extract_tb(problem.__traceback__) if "site-packages" not in f.filename]
    return f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
