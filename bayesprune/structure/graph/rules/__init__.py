"""What each operation does to labels: one small function for a kind of operation."""
