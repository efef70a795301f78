"""Graphs and tensors without the units that were removed."""
