"""The field's tables, run again: every method on the same rows with the same care, beside what was published.

    bayesprune reproduce mnist-mlp --seeds 5 --out tables/mnist-mlp

A table names a program's network and data, methods, and published rows. Every method has as many settings to
choose from, which are tried on rows held out of the training rows, at the first seed; then it learns with
the chosen one on all training rows, seed by seed. Each training is kept as a file of its own, so that a
table that was interrupted goes on where it was.
"""

from bayesprune.reproduce.methods import Learnt, Method, Setup
from bayesprune.reproduce.published import Published
from bayesprune.reproduce.render import as_markdown, as_text
from bayesprune.reproduce.run import Reproduced, run_table
from bayesprune.reproduce.tables import TABLES, Table, named

__all__ = [
    "TABLES",
    "Learnt",
    "Method",
    "Published",
    "Reproduced",
    "Setup",
    "Table",
    "as_markdown",
    "as_text",
    "named",
    "run_table",
]
