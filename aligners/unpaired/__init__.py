"""Aligning two sets of rows that share no item, or only a few known ones."""
