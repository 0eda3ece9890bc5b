"""Relative representations: rows described by their similarities to anchor items that both spaces share."""
