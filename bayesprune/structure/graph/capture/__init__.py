"""From a network to its graphs: traced, kept over its parameters, run where its rows are."""
