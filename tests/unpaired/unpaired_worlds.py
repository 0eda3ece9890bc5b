"""Planted worlds for rows that do not correspond."""

import torch
from torch import Tensor


def rotation(d: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64))[0]


def cloud(n: int, d: int, seed: int = 0, draw: int = 0) -> Tensor:
    """Skewed clusters of unequal size; ``draw`` gives other rows of the same space."""
    g = torch.Generator().manual_seed(1000 + seed)
    centres = 1.2 * torch.randn(30, d, generator=g, dtype=torch.float64)
    share = torch.rand(30, generator=g, dtype=torch.float64) ** 2
    g.manual_seed(31 * seed + draw)
    kind = torch.multinomial(share, n, True, generator=g)
    spread = 0.6 * torch.linspace(1.5, 0.3, d, dtype=torch.float64)
    rows = centres[kind] + torch.randn(n, d, generator=g, dtype=torch.float64) * spread
    return rows + 0.3 * rows.abs()


def permuted(n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, the same rows rotated, shifted and shuffled, and the order: ``y[i]`` is the mate of ``x[order[i]]``."""
    x = cloud(n, d, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 7))
    return x, (x @ rotation(d, seed + 1))[order] + 0.5, order


def disjoint(n: int, d: int, seeds: int, noise: float = 0.1, world: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, OTHER rows of the rotated, noisy space but for the first ``seeds``; rows held out, and their mates."""
    everything, turn = cloud(2 * n + 300, d, world), rotation(d, world + 5)
    g = torch.Generator().manual_seed(world + 3)
    copy = everything @ turn + noise * torch.randn(everything.shape, generator=g, dtype=torch.float64)
    x = everything[: n + seeds]
    y = torch.cat([copy[:seeds], copy[n + seeds : 2 * n]])
    return x, y, everything[-300:], copy[-300:]


def right(mapped: Tensor, truth: Tensor) -> float:
    """Share of rows that are nearest to their own mate."""
    return float((torch.cdist(mapped, truth).argmin(1) == torch.arange(len(truth))).double().mean())
