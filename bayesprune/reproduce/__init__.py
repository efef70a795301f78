"""The field's tables, run again: every method on the same rows with the same care, beside what was published.

    bayesprune reproduce mnist-mlp --seeds 5 --out tables/mnist-mlp

A table names a program's network and data, methods, and published rows. Every method has as many settings to
choose from, which are tried on rows held out of the training rows, at the first seed; then it learns with
the chosen one on all training rows, seed by seed. Tables of curves learn every setting by every seed, and
compare methods at equal sizes. Each training is kept as a file of its own, so that a table that was
interrupted goes on where it was.
"""

from bayesprune.reproduce.curves import Traced, run_curves
from bayesprune.reproduce.published import Published
from bayesprune.reproduce.render import as_markdown, as_text
from bayesprune.reproduce.render_curves import as_record, curves_as_markdown, curves_as_text, read_record
from bayesprune.reproduce.run import Reproduced, run_table
from bayesprune.reproduce.setup import Learnt, Method, Setup
from bayesprune.reproduce.table import Curves, Part, Table
from bayesprune.reproduce.tables import TABLES, named

__all__ = [
    "TABLES",
    "Curves",
    "Learnt",
    "Method",
    "Part",
    "Published",
    "Reproduced",
    "Setup",
    "Table",
    "Traced",
    "as_markdown",
    "as_record",
    "as_text",
    "curves_as_markdown",
    "curves_as_text",
    "named",
    "read_record",
    "run_curves",
    "run_table",
]
