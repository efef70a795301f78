"""A run as one page to read: how small, how good, how sure, and what to do next; one HTML file, by itself."""

from bayesprune.report.drawing import Plot
from bayesprune.report.reading import Run, read_runs
from bayesprune.report.write import NAME, build, write_report

__all__ = ["NAME", "Plot", "Run", "build", "read_runs", "write_report"]
