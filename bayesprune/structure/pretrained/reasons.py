"""Why a config cannot say what a network has become: which field, which layers, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from bayesprune.structure.kinds import role
from bayesprune.structure.pretrained.config import fields, written
from bayesprune.structure.pretrained.search import Search, governed

Owners = Mapping[tuple[str, int], tuple[str, int]]
"""(tensor, dimension) → a group that has lost units there, and its size."""

OTHERWISE = "bp.save(network, folder, example=...) saves it as it is, and bp.load loads that."


def _begin(module: nn.Module) -> str:
    return f"{type(module).__name__} cannot be saved with a {type(module.config).__name__}: "


def not_its_own(module: nn.Module, difference: str) -> str:
    """A module that its config did not make in the first place."""
    return (
        f"{_begin(module)}its config alone did not make this network ({difference}), so no other one makes "
        f"what has become of it. {OTHERWISE}"
    )


def no_such_layers(module: nn.Module, gone: set[str]) -> str:
    """Sections that went from layers of which others stay."""
    listed = ", ".join(sorted({name.rpartition(".")[0] for name in gone})[:4])
    return (
        f"{_begin(module)}{listed} are gone, and its class runs all parts of every layer. Whole layers can "
        f'go: gate with layers="blocks", or with layers="none". {OTHERWISE}'
    )


def no_such_values(module: nn.Module, search: Search, owners: Owners, problem: str) -> str:
    """Sizes that no values of its fields make."""
    told = _fields_of_several(search, owners)
    if told:
        return f"{_begin(module)}{told} {OTHERWISE}"
    best = search.best
    values = ", ".join(f"{written(path)}={value!r}" for path, value in best.changes.items()) or "no change"
    if best.wrong:
        names = [*search.wanted, *best.shapes]
        name = next(n for n in names if best.shapes.get(n) != search.wanted.get(n))
        is_, then = (there.get(name, "not there") for there in (search.wanted, best.shapes))
        problem = f"{name} is {is_}, and {then} then"
    groups = ", ".join(repr(group) for group, _ in sorted(set(owners.values())))
    whole = f"Leave some of the groups {groups} whole, exclude=. " if groups else ""
    return (
        f"{_begin(module)}no values of its fields make these sizes; nearest is {values}, but {problem}. "
        f"{whole}{OTHERWISE}"
    )


def _fields_of_several(search: Search, owners: Owners) -> str:
    """Fields that are one number, where the network has several; and what would keep it one."""
    values: dict[Any, Any] = dict(fields(search.config))
    dense, told, remedies = search.dense.shapes, [], dict[str, None]()
    for path, places in governed(search, [path for path, _ in search.candidates]).items():
        shares: dict[float, list[tuple[str, int]]] = {}
        for name, dim in sorted(places):
            if name in search.wanted:
                shares.setdefault(search.wanted[name][dim] / dense[name][dim], []).append((name, dim))
        if len(shares) < 2:
            continue
        firsts = [of[0] for of in shares.values()]
        listed = ", ".join(f"{n} has {search.wanted[n][d]} of {dense[n][d]}" for n, d in firsts[:4])
        told.append(f"{written(path)}={values[path]} is one number, and {listed}")
        remedies[_remedy(shares, owners)] = None
    return "; ".join(told) + ". " + " ".join(remedies) if told else ""


def _remedy(shares: dict[float, list[tuple[str, int]]], owners: Owners) -> str:
    """Keep groups equal, where all have lost units and can be; else leave some of them whole."""
    lost = [place for share, of in shares.items() for place in of if share < 1]
    groups = dict.fromkeys(owners[place] for place in lost if place in owners)
    names = ", ".join(repr(name) for name, _ in groups)
    if max(shares) < 1:
        alike = len({size for _, size in groups}) == 1
        if alike and len({role(name) for name, _ in groups}) == 1:
            return "bp.Budget(..., uniform=True) keeps layers equal."
        if alike:
            return f"bp.Budget(..., uniform=...) keeps them equal by a pattern that stands for {names}."
        if math.gcd(*(size for _, size in groups)) > 1:
            return f"bp.Budget(..., uniform=[({names})]) lets them lose the same share."
        return f"Leave some of {names} whole, exclude=."
    return f"Leave {names} whole, exclude=." if names else ""
