"""Optimal transport between two sets of rows, on POT."""
