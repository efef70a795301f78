"""Certificates: a bound on what a pruned network loses, that holds with a stated probability."""
