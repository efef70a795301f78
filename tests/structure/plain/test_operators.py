"""The list of operations: all there, all reachable by name, and nothing else."""

import operator
import os

import pytest
import torch

from bayesprune.structure.plain.operators import ARITHMETIC, ATEN, name_of, operator_of


@pytest.mark.parametrize("kind", sorted(ATEN))
def test_every_listed_operation_is_found_by_its_own_name(kind):
    forms = [getattr(torch.ops.aten, k) for k in (kind, f"{kind}_") if hasattr(torch.ops.aten, k)]
    named = [getattr(form, overload) for form in forms for overload in form.overloads()]
    names = {name_of(operation) for operation in named} - {None}
    assert names
    assert all(name_of(operator_of(name)) == name for name in names)


@pytest.mark.parametrize("name", sorted(ARITHMETIC))
def test_arithmetic_of_sizes_too(name):
    assert name_of(operator_of(name)) == name


@pytest.mark.parametrize(
    "target",
    [
        torch.ops.aten.from_file.default,  # maps a file into memory
        torch.ops.aten.resize_.default,
        torch.ops.aten.set_.source_Tensor,
        torch.ops.aten.as_strided.default,
        torch.ops.aten._unsafe_index.Tensor,
        torch.ops.aten.add.out,  # writes into a given tensor
        torch.ops.aten.div.out_mode,
        torch.ops.aten.split.str,
        torch.ops.prims.add.default,
        operator.attrgetter("x"),
        operator.pow,
        print,
        os.system,
        eval,
        torch.load,
        "aten::add.Tensor",
    ],
    ids=lambda target: getattr(target, "__name__", str(target)).partition(" at ")[0],
)
def test_nothing_else_has_a_name(target):
    assert name_of(target) is None


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "aten::from_file.default",
        "aten::save.default",
        "aten::resize_.default",
        "aten::set_data.default",
        "aten::add.out",
        "aten::add.Scalar_out",
        "aten::add.str",
        "aten::add",
        "aten::add.",
        "aten::add.nothing",
        "aten::add.__class__",
        "aten::add.Tensor.redispatch",
        "aten::add.Tensor\n",
        "aten::__class__.default",
        "aten::add_Tensor",
        "aten.add.Tensor",
        "prims::add.default",
        "profiler::_record_function_enter.default",
        "operator.attrgetter",
        "operator.methodcaller",
        "operator.pow",
        "torch.load",
        "math.__loader__",
        "",
        None,
        7,
        ["aten::add.Tensor"],
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError):
        operator_of(name)
