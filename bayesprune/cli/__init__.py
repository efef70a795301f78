"""The command line: `bayesprune run | list | copy | export`."""

from bayesprune.cli.main import main

__all__ = ["main"]
