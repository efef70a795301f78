"""Einsum: products in other clothes, of two activations or of one and a parameter."""

from __future__ import annotations

import string
from typing import Any

import torch
from torch import Tensor

from bayesprune.structure.graph.rules.call import (
    CROSSES,
    Call,
    Place,
    Raw,
    Read,
    is_fixed,
    rule,
    united,
    varying,
)
from bayesprune.structure.graph.rules.labels import READS_FIXED, along, spread
from bayesprune.structure.graph.rules.products import product


@rule("aten.einsum", parameters=("tensors",))
def einsum(call: Call) -> Any:
    """Letters in both operands and in the result are batch dimensions, those left out are summed over."""
    operands = call.known["tensors"]
    letters = letters_of(call.args["equation"], [len(known.shape) for known in operands])
    if letters is None or len(operands) > 2 or any(len(set(word)) != len(word) for word in letters):
        return call.refill("einsum of this form has no rule yet")
    *words, result = letters
    if len(operands) == 1:
        return _of_one(call, operands[0], words[0], result)
    first, second = operands
    if isinstance(first, Raw) and isinstance(second, Raw):
        return call.frozen_everything("a product of parameters")
    if isinstance(first, Raw) or isinstance(second, Raw):
        at = int(isinstance(first, Raw))
        return _by_parameter(call, at, words[at], words[1 - at], result)
    return _of_activations(call, words, result)


def letters_of(equation: str, ndims: list[int]) -> list[str] | None:
    """The letters of every operand and of the result; an ellipsis as letters of its own."""
    given, arrow, result = equation.replace(" ", "").partition("->")
    words = given.split(",")
    if len(words) != len(ndims):
        return None
    most = max((n - len(w) + 3 for w, n in zip(words, ndims, strict=True) if "..." in w), default=0)
    free = [c for c in string.ascii_letters if c not in equation][:most]
    if not arrow:
        counts = {c: given.count(c) for c in given if c.isalpha()}
        result = ("..." if "..." in given else "") + "".join(sorted(c for c, n in counts.items() if n == 1))
    full = []
    for word, ndim in zip([*words, result], [*ndims, 0], strict=True):
        hidden = most if word is result else ndim - len(word) + 3
        full.append(word.replace("...", "".join(free[most - hidden :])))
    return full


def _of_one(call: Call, x: Tensor | Raw, word: str, result: str) -> Any:
    """Dimensions in another order, and sums over some of them."""
    if isinstance(x, Raw):
        return call.refill("einsum of this form has no rule yet")
    summed = {d for d, letter in enumerate(word) if letter not in result}
    if varying(x) & summed:
        vector = along(x, (varying(x) & summed).pop())
        if vector is None:
            return call.refill(CROSSES)
        _read(call, 0, varying(x).pop(), vector, None)
        return call.fixed()
    left = x[tuple(0 if d in summed else slice(None) for d in range(x.ndim))]
    kept = [letter for letter in word if letter in result]
    return left.permute([kept.index(letter) for letter in result])


def _of_activations(call: Call, words: list[str], result: str) -> Any:
    """Permuted into (batch..., n, k) @ (batch..., k, m), where n, k and m are one letter each, or none.

    Further letters of one operand alone are batch dimensions, along which the other one is the same.
    """
    first, second = words
    batch = [c for c in result if c in first and c in second]
    inner = [c for c in first if c in second and c not in result]
    rows = [c for c in first if c not in second]
    columns = [c for c in second if c not in first]
    if len(inner) > 1 or any(c not in result for c in rows + columns):
        return call.refill("einsum over several dimensions at once has no rule yet")
    batch += rows[:-1] + columns[:-1]  # in one operand alone, where the other one is the same for all
    rows, columns = rows[-1:], columns[-1:]
    a = _arranged(call.known["tensors"][0], first, [batch, rows, inner])
    b = _arranged(call.known["tensors"][1], second, [batch, inner, columns])
    shape = (*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])

    def read(vector: Tensor) -> None:
        _read(call, 0, first.index(inner[0]), vector, None)

    labels = product(call, a, b, torch.Size(shape), read)
    order = [*batch, *(rows or ["?"]), *(columns or ["!"])]
    for missing in {"?", "!"} & set(order):
        labels = labels.select(order.index(missing), 0)
        order.remove(missing)
    return labels.permute([order.index(c) for c in result]).expand(call.shape)


def _arranged(labels: Tensor, word: str, parts: list[list[str]]) -> Tensor:
    """Labels with dimensions in the order of the parts; those that it has not are of size one."""
    letters = [c for part in parts for c in part]
    value = labels.permute([word.index(c) for c in letters if c in word])
    for position, letter in enumerate(letters):
        if letter not in word:
            value = value.unsqueeze(position)
    if not parts[2]:
        value = value.unsqueeze(-1)
    return value if parts[1] else value.unsqueeze(len(parts[0]))


def _by_parameter(call: Call, at: int, word: str, other: str, result: str) -> Any:
    """The parameter's letters one by one: what it is summed over reads units, what it adds makes new ones.

    Args:
        call: the operation.
        at: which operand the activation is.
        word: its letters.
        other: the parameter's.
        result: the result's.
    """
    x, weight = call.known["tensors"][at], call.known["tensors"][1 - at]
    inner = [c for c in word if c in other and c not in result]
    batch = [c for c in word if c in other and c in result]
    made = [c for c in other if c not in word]
    if any(c not in result for c in made) or any(c not in result and c not in inner for c in word):
        return call.refill("einsum of this form has no rule yet")
    units = {word[d] for d in varying(x)}
    passing = units - set(inner)
    if len(passing) > 1 or (passing and units & set(inner)):
        return call.refill(CROSSES)

    def own(letter: str) -> Tensor:
        vector: Tensor = weight.along(call.labels, other.index(letter))
        return vector

    if units:
        letter = next((c for c in word if c in units), "")
        vector = united(call, x, word.index(letter))
        if letter in other:
            call.join(vector, own(letter), READS_FIXED)
        if letter in inner:
            place: Place | None = weight.dims[other.index(letter)]
            _read(call, at, word.index(letter), vector, place)
    for letter in inner + batch:
        if letter not in units or (len(units) > 1 and letter != next(c for c in word if c in units)):
            call.labels.freeze(own(letter), call.place, READS_FIXED)
    for letter in made[1:] if not passing else made:
        call.labels.freeze(own(letter), call.place, "its units run along another dimension")
    if passing:
        letter = passing.pop()
        return spread(along(x, word.index(letter)), result.index(letter), call.shape)  # type: ignore[arg-type]
    if not made:
        return call.fixed()
    return spread(own(made[0]), result.index(made[0]), call.shape)


def _read(call: Call, at: int, dim: int, vector: Tensor, place: Place | None) -> None:
    """Gates in front of one of the operands."""
    source = call.node.args[1][at]  # type: ignore[index]
    if not is_fixed(vector):
        call.findings.reads.append(Read(call.node, source, dim, vector, place))  # type: ignore[arg-type]
