"""Planted worlds on which trained and bent maps are tried."""

import torch
from torch import Tensor


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def rotation(dim: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(dim, dim, seed=seed))[0]


def planted(n: int, p: int, q: int, *, noise: float = 0.1, latent: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two noisy linear views of the same latent rows, each with a mean of its own."""
    z = normal(n, latent, seed=seed)
    x = z @ normal(latent, p, seed=seed + 1) + noise * normal(n, p, seed=seed + 2) + normal(p, seed=seed + 3)
    y = z @ normal(latent, q, seed=seed + 4) + noise * normal(n, q, seed=seed + 5) + normal(q, seed=seed + 6)
    return x, y


def bent(n: int, dim: int = 6, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A known non-linearity: a rotation, and a quarter of its rows' squares added to the next coordinate."""
    x = normal(n, dim, seed=seed)
    turned = x @ rotation(dim, seed=99)
    return x, turned + 0.5 * (turned.square() - 1).roll(1, dims=1)


def two_rotations(n: int, dim: int = 6, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two clouds far apart, each turned by a rotation of its own about its own mean."""
    half, apart = n // 2, 12 * torch.eye(dim, dtype=torch.float64)[0]
    x, turns = normal(n, dim, seed=seed), (rotation(dim, 5), rotation(dim, 6))
    y = torch.cat([x[:half] @ turns[0] + 1, x[half:] @ turns[1] - 1])
    x[:half] += apart
    order = torch.randperm(n, generator=generator(seed + 1))
    return x[order], y[order]


def r2(mapped: Tensor, y: Tensor) -> float:
    return 1 - float((mapped - y).square().sum() / (y - y.mean(0)).square().sum())
