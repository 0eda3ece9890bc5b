"""Fit, tune or test: decided by an item's key alone, so that it never changes and groups stay together."""

import torch
from torch import Tensor

from ...aligners.pairs import mix

__all__ = ["SHARES", "in_test", "split_of"]

SHARES = {"fit": 0.7, "tune": 0.1, "test": 0.2}
SEED = 5  # of the split alone; another one would move items between fit and test


def split_of(keys: Tensor) -> Tensor:
    """0 for fit, 1 for tune, 2 for test ``(n,)``, of int64 ``keys`` ``(n,)`` (hashes of ids or groups)."""
    dice = (mix(keys, SEED) >> 11) & ((1 << 52) - 1)
    fit, tune = SHARES["fit"], SHARES["fit"] + SHARES["tune"]
    share = dice.double() / 2.0**52
    return (share >= fit).long() + (share >= tune).long()


def in_test(keys: Tensor) -> Tensor:
    """Whether each key is held out for the test ``(n,)``."""
    return torch.eq(split_of(keys), 2)
