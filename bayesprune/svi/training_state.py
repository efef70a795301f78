"""The whole state of a training as tensors and plain values, and a training put back into it, bit by bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bayesprune.gated import GatedModel
from bayesprune.structure.copying import copy_of
from bayesprune.svi.moves import Decision
from bayesprune.svi.moves_together import decision_of
from bayesprune.svi.optimisers import moved
from bayesprune.svi.result import Epoch
from bayesprune.svi.step import State

if TYPE_CHECKING:
    from bayesprune.svi.training import Training

SINGLE = ("velocity", "gate_noise", "history")
PARTS = ("model", "optimiser", "average", "decision")


@dataclass(frozen=True)
class TrainingState:
    """All that a training needs to go on to the bit-equal result, but for the data's own randomness.

    Attributes:
        tensors: name → tensor, on the CPU: the model, what optimisers keep, averages, the gates' velocity and
            noise, the history of inclusion probabilities.
        plain: name → what JSON can hold.
    """

    tensors: dict[str, Tensor]
    plain: dict[str, Any]


def taken(training: Training) -> TrainingState:
    """The state of a training, as copies.

    Raises:
        ValueError: its optimiser keeps something that is no tensor and no number.
    """
    tensors = {f"model/{name}": value for name, value in training.gated.state_dict().items()}
    kept: dict[str, dict[str, Any]] = {}
    for name, _, state in _moments(training):
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{name}/{key}"] = value
            elif value is None or isinstance(value, bool | int | float):
                kept.setdefault(name, {})[key] = value
            else:
                what = f"{type(training.optimizer).__name__} keeps {key!r} as a {type(value).__name__}"
                raise ValueError(f"{what}, which cannot be saved: it must be a tensor or a number")
    tensors |= {f"average/{name}": value for name, value in training.average.items()}
    if training.at_decision is not None:
        tensors |= {f"decision/{name}": value for name, value in training.at_decision.state_dict().items()}
    tensors["velocity"] = training.state.velocity
    tensors["gate_noise"] = training.engine.generator.get_state()
    epochs = training.history
    tensors["history"] = torch.stack([e.inclusion for e in epochs]) if epochs else torch.empty(0)
    plain = {
        "step": training.state.step,
        "prior_weight": training.state.prior_weight,
        "decided": training.state.decided,
        "decided_at": training.decided_at,
        "averaged": training.averaged,
        "rounded": training.rounded,
        "decision": asdict(training.decision),
        "seconds": training.seconds,
        "seen": [float(training.passed.nll), training.passed.rows],
        "groups": [settings_of(group) for group in training.optimizer.param_groups],
        "kept": kept,
        "epochs": [{k: v for k, v in asdict(e).items() if k != "inclusion"} for e in epochs],
    }
    return TrainingState({name: _plain(tensor) for name, tensor in tensors.items()}, plain)


def put_(training: Training, state: TrainingState) -> None:
    """Bring a training that has taken no step to where another of its kind was.

    Args:
        training: changed in place, after all of the state was found to fit.
        state: of the other.

    Raises:
        KeyError, ValueError, RuntimeError: it does not fit; nothing was changed.
    """
    parts = _parted(state.tensors)
    _try_on_copy(training, parts, state.plain)
    plain, single = state.plain, parts[""]
    if parts["decision"]:  # checkpoints of earlier versions kept none
        training.at_decision = _at_decision(training, parts["decision"])
    training.engine.remove_(~parts["model"]["alive"].to(training.gated.alive.device))
    training.follow_removals_()
    if plain["decided"]:
        for model in (training.gated, *training.also):
            if isinstance(model, GatedModel):
                model.continuous.settle_(model.by_group(model.alive))
    if _turned(training, plain):
        training.enter_compact_(_spread(parts["model"]))
    training.gated.load_state_dict(dict(parts["model"]))
    _put_moments_(training, parts["optimiser"], plain)
    device = training.state.velocity.device
    training.average = {name: value.to(device) for name, value in parts["average"].items()}
    training.state = State(
        step=plain["step"],
        velocity=single["velocity"].to(device),
        prior_weight=plain["prior_weight"],
        moving=training.schedule.warmup <= plain["step"],
        decided=plain["decided"],
    )
    training.decided_at, training.rounded = plain["decided_at"], plain["rounded"]
    training.decision = _decision(plain.get("decision"))  # earlier versions made no moves
    training.averaged, training.seconds = plain["averaged"], plain["seconds"]
    training.passed.nll += plain["seen"][0]
    training.passed.rows = int(plain["seen"][1])
    training.history = [
        Epoch(**epoch, inclusion=row.clone())
        for epoch, row in zip(plain["epochs"], single["history"], strict=True)
    ]
    training.engine.generator.set_state(single["gate_noise"])


def _decision(plain: Mapping[str, Any] | None) -> Decision:
    if plain is None:
        return Decision()
    return decision_of(plain)


# ---- what is kept of parameters


def _moments(training: Training) -> Iterable[tuple[str, nn.Parameter, dict[str, Any]]]:
    """Name, parameter, and what the optimisers keep of it."""
    by_id = {id(p): (name, p) for name, p in training.gated.named_parameters()}
    beside = training.engine.beside
    for optimiser in (training.optimizer, *([] if beside is None else [beside])):
        for parameter, state in optimiser.state.items():
            if id(parameter) in by_id and state:
                yield *by_id[id(parameter)], state


def _put_moments_(training: Training, saved: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """What optimisers keep, each where it belongs: step counts on the CPU unless kernels read them."""
    by_name = dict(training.gated.named_parameters())
    beside = training.engine.beside
    optimisers = (training.optimizer, *([] if beside is None else [beside]))
    groups = {id(p): (o, g) for o in optimisers for g in o.param_groups for p in g["params"]}
    for key, value in saved.items():
        name, _, what = key.rpartition("/")
        parameter = by_name[name]
        optimiser, group = groups[id(parameter)]
        on_device = what != "step" or group.get("fused") or group.get("capturable")
        optimiser.state[parameter][what] = value.to(parameter.device).clone() if on_device else value.clone()
    for name, numbers in plain["kept"].items():
        parameter = by_name[name]
        groups[id(parameter)][0].state[parameter].update(numbers)
    for group, settings in zip(training.optimizer.param_groups, plain["groups"], strict=True):
        for key, value in settings.items():
            now = group.get(key)
            if isinstance(now, Tensor):
                now.fill_(value)
            else:
                group[key] = tuple(value) if isinstance(now, tuple) else value


def settings_of(group: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a parameter group: its learning rate, momentum and the like."""
    found: dict[str, Any] = {}
    for key, value in group.items():
        if isinstance(value, Tensor) and value.numel() == 1:
            found[key] = float(value)
        elif value is None or isinstance(value, bool | int | float | str):
            found[key] = value
        elif isinstance(value, tuple | list) and all(isinstance(v, int | float) for v in value):
            found[key] = list(value)
    return found


# ---- whether a state fits


def _parted(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in (*PARTS, "")}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        if rest and part not in parts:
            raise KeyError(f"missing or unknown: {name}")
        parts[part if rest else ""][rest or name] = tensor
    return parts


def _try_on_copy(training: Training, parts: dict[str, dict[str, Tensor]], plain: Mapping[str, Any]) -> None:
    """Everything of a state must be of the names, types and shapes that it would be put over."""
    check_names(parts[""], SINGLE)
    _decision(plain.get("decision"))
    gated: GatedModel = copy_of(training.gated)
    gated.remove_(~parts["model"]["alive"].to(gated.alive.device))
    if plain["decided"]:
        gated.continuous.settle_(gated.by_group(gated.alive))
    if parts["decision"]:
        _at_decision(training, parts["decision"])
    if _turned(training, plain) and _spread(parts["model"]) and not gated.log_scales:
        gated.spread_weights_(gated.weights.initial_scale)
    _check_model(gated, parts["model"])
    by_name = moved(gated)
    own = {name: p for name, p in gated.named_parameters() if name.startswith("continuous.")}
    for key, value in parts["optimiser"].items():
        name = key.rpartition("/")[0]
        if name not in by_name | own:
            raise KeyError(f"missing or unknown: {key}")
        _check_moment(value, (by_name | own)[name], key)
    matrices = {name for name, p in by_name.items() if p.ndim > 1}
    for alike_named in (matrices, set(by_name) - matrices, set(own)):
        _check_kinds(parts["optimiser"], plain["kept"], alike_named)
    strange = set(plain["kept"]) - set(by_name) - set(own)
    if strange:
        raise KeyError(f"missing or unknown: {', '.join(sorted(strange)[:5])}")
    if len(plain["groups"]) != len(training.optimizer.param_groups) and not _turned(training, plain):
        raise ValueError("its optimiser had another number of parameter groups")
    named = dict(gated.network.named_parameters())
    check_names(parts["average"], named if plain["averaged"] else ())
    for name, value in parts["average"].items():
        alike(value, named[name], name)
    velocity, epochs = training.state.velocity, plain["epochs"]
    alike(parts[""]["velocity"], velocity, "velocity")
    wanted = velocity.new_zeros(len(epochs), len(velocity)) if epochs else torch.empty(0)
    alike(parts[""]["history"], wanted, "history")
    torch.Generator(velocity.device).set_state(parts[""]["gate_noise"])


def _turned(training: Training, plain: Mapping[str, Any]) -> bool:
    """Whether the compact part has begun: with the decision, or where it would have been."""
    late = not training.recipe.decides and plain["step"] > training.schedule.decide
    return bool(plain["decided"]) or late


def _spread(saved: Mapping[str, Tensor]) -> bool:
    """Whether weights had a posterior."""
    return any(name.startswith("log_scales.") for name in saved)


def _at_decision(training: Training, saved: Mapping[str, Tensor]) -> GatedModel:
    """The model as it was before gates were decided."""
    gated: GatedModel = copy_of(training.gated).eval()
    gated.remove_(~saved["alive"].to(gated.alive.device))
    _check_model(gated, saved)
    gated.load_state_dict(dict(saved))
    return gated


def _check_model(gated: GatedModel, saved: Mapping[str, Tensor]) -> None:
    own = gated.state_dict()
    check_names(saved, own)
    trained = {name for name, _ in gated.named_parameters()}
    for name, tensor in saved.items():  # loading would convert other types without a word
        alike(tensor, own[name], name, finite=name in trained)
    if not torch.equal(saved["alive"], own["alive"].cpu()):
        raise ValueError("units are alive that nothing reads")


def _check_moment(value: Tensor, parameter: Tensor, name: str) -> None:
    """A number for the whole parameter, or one for each of its numbers, rows or columns."""
    same = value.ndim == parameter.ndim and all(
        size in (1, own) for size, own in zip(value.shape, parameter.shape, strict=True)
    )
    if value.numel() != 1 and not same:
        raise ValueError(f"{name} is {list(value.shape)}, beside a parameter of {list(parameter.shape)}")
    if same and value.numel() > 1 and value.dtype not in (parameter.dtype, torch.float32):
        raise ValueError(f"{name} is {value.dtype}, beside a parameter of {parameter.dtype}")
    if value.is_floating_point() and not bool(value.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinity: the training had diverged")


def _check_kinds(tensors: Iterable[str], numbers: Mapping[str, Mapping[str, Any]], names: set[str]) -> None:
    """An optimiser keeps the same of every matrix, and of every vector (Adafactor another of each)."""
    kinds: dict[str, set[str]] = {}
    for key in (*tensors, *(f"{name}/{what}" for name, kept in numbers.items() for what in kept)):
        name, _, what = key.rpartition("/")
        if name in names:
            kinds.setdefault(name, set()).add(what)
    every = set[str]().union(*kinds.values())
    lacking = [f"{name}/{what}" for name, kept in kinds.items() for what in sorted(every - kept)]
    if lacking:
        raise KeyError(f"missing or unknown: {', '.join(lacking[:5])}")


def check_names(found: Iterable[str], expected: Iterable[str]) -> None:
    """There must be exactly these."""
    wrong = sorted(set(found) ^ set(expected))
    if wrong:
        raise KeyError(f"missing or unknown: {', '.join(wrong[:5])}")


def alike(tensor: Tensor, like: Tensor, name: str, finite: bool = True) -> Tensor:
    """A tensor of the type and shape of another, without NaN or infinity."""
    if tensor.dtype != like.dtype or tensor.shape != like.shape:
        raise ValueError(
            f"{name} is {tensor.dtype} {list(tensor.shape)}, not {like.dtype} {list(like.shape)}"
        )
    if finite and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinity: the training had diverged")
    return tensor


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()
