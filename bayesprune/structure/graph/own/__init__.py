"""The user's own class for a smaller network: sizes that its modules note are found, and follow the cut."""
