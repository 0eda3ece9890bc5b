"""Spaces that meet in named coordinates: no item in common, but the names of labels or concepts."""
