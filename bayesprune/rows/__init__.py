"""Rows: what is learnt from or scored on, in whichever form a user holds it, counted and checked once."""

from bayesprune.rows.batched import Batched
from bayesprune.rows.call import Call, Inputs, joined, run
from bayesprune.rows.counts import Count, rows_of_loader
from bayesprune.rows.example import example_call, finite_example, one_input_of
from bayesprune.rows.find import Source, rows_from
from bayesprune.rows.form import CallRows, Form, RowForm
from bayesprune.rows.items import Items
from bayesprune.rows.memory import InMemory
from bayesprune.rows.rows import Pair, Rows

__all__ = [
    "Batched",
    "Call",
    "CallRows",
    "Count",
    "Form",
    "InMemory",
    "Inputs",
    "Items",
    "Pair",
    "RowForm",
    "Rows",
    "Source",
    "example_call",
    "finite_example",
    "joined",
    "one_input_of",
    "rows_from",
    "rows_of_loader",
    "run",
]
