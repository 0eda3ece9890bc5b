"""What named coordinates are worth: does each find its rows, do encoders agree on it, why do two rows match."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UsageError

__all__ = ["auroc", "contributions", "spearman"]


def ranks(values: Tensor) -> Tensor:
    """Ranks ``(n, ...)`` along the first axis, ties at their mean."""
    from scipy.stats import rankdata

    return torch.from_numpy(rankdata(values.double().numpy(), axis=0))


def auroc(scores: Tensor, truth: Tensor) -> Tensor:
    """Chance that a row that bears the label ``truth`` ``(n,)`` scores higher than one that does not; ties count half.

    Nan where all rows bear it, or none.
    """
    yes, no = int(truth.sum()), int((~truth).sum())
    if not yes or not no:
        return torch.tensor(float("nan"), dtype=torch.float64)
    return (ranks(scores)[truth].sum() - yes * (yes + 1) / 2) / (yes * no)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation ``(k,)`` of each column of ``a`` and ``b`` ``(n, k)``; nan where one does not vary."""
    if a.shape != b.shape or len(a) < 2:
        raise UsageError(f"expected the same two rows or more of both, got {tuple(a.shape)} and {tuple(b.shape)}.")
    x, y = (ranks(side) - (len(side) + 1) / 2 for side in (a, b))
    return (x * y).sum(0) / (x.square().sum(0) * y.square().sum(0)).sqrt()


def contributions(a: Tensor, b: Tensor) -> Tensor:
    """``a_c b_c / (|a| |b|)`` ``(n, k)``: what each coordinate adds to the cosine of rows ``a`` and ``b``."""
    lengths = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return a * b / lengths.clamp(min=torch.finfo(a.dtype).tiny)[:, None]
