"""Gates, noise and batch statistics in a graph."""
