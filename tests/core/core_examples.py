"""Example maps and alignments, in one place: a new kind of map is added to `make_maps` and meets every law."""

import torch
from torch import Tensor

from suture.aligners import Affine, Alignment, Chain, Identity, Map, Normalize, Space
from suture.aligners.multiway.fused import Fused
from suture.aligners.named.sparse_code import SparseCode
from suture.aligners.nonlinear.kinds import Landmark, Mixture, Residual
from suture.aligners.relative.map import Product, Relative


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def rotation(dim: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(rows(dim, dim, seed=seed)).Q


def make_maps() -> dict[str, Map]:
    """One map of every kind and shape by name; all take 5 dims."""
    square = rotation(5) @ torch.diag(torch.linspace(0.5, 2, 5, dtype=torch.float64))
    down, up = rows(5, 3, seed=2), rows(5, 7, seed=3)
    maps: dict[str, Map] = {
        "identity": Identity(5),
        "rotation": Affine(rotation(5), torch.zeros(5, dtype=torch.float64)),
        "affine": Affine(square, rows(5, seed=4)),
        "affine float32": Affine(square.float(), rows(5, seed=4).float()),
        "affine down": Affine(down, rows(3, seed=5)),
        "affine up": Affine(up, rows(7, seed=6)),
        "affine transposed": Affine(square.T, rows(5, seed=7)),
        "affine singular": Affine(torch.ones(5, 5, dtype=torch.float64), rows(5, seed=4)),
        "normalize": Normalize(5),
        "fused": Fused(up, rows(2, 7, seed=6), rows(7, seed=7), rows(2, seed=8), (2, 3), 1.5),
        "fused routed": Fused(
            up, rows(2, 7, seed=6), rows(7, seed=7), rows(2, seed=8), (2, 3), 1.5, rows(14, 2, seed=9)
        ),
        "sparse code": SparseCode.of(rows(4, 5, seed=3), rows(5, seed=4), 0.1),
        "residual": Residual(up, rows(7, seed=6), rows(5, 4, seed=10), rows(4, seed=11), rows(4, 7, seed=12)),
        "landmark": Landmark(down, rows(3, seed=5), rows(5, seed=4), rows(6, 5, seed=10), rows(6, 3, seed=11), 0.2),
        "mixture": Mixture(rows(3, 5, 4, seed=10), rows(3, 4, seed=11), rows(3, 5, seed=12), 0.3),
        **make_relative_maps(),
        "chain": Normalize(5) >> Affine(down, rows(3, seed=5)) >> Normalize(3),
        "affine chain": Chain((Affine(rotation(5), rows(5, seed=9)), Affine(square, rows(5, seed=4)))),
        "long chain": Chain(tuple(m for _ in range(6) for m in (Normalize(5), Affine(square, rows(5, seed=8))))),
    }
    return maps


def make_relative_maps() -> dict[str, Map]:
    """One of every readout, and their product."""
    anchors, centre, shift, gain = rows(6, 5, seed=10), rows(5, seed=11), rows(6, seed=12), rows(6, seed=13)
    plain = ("linear", "cosine", "angular", "euclidean", "l1", "linf")
    maps: dict[str, Relative] = {f"relative {r}": Relative(anchors, centre, shift, gain, readout=r) for r in plain}
    graph = (rows(9, 5, seed=14), rows(9, 6, seed=15).abs())
    geodesic = Relative(anchors, centre, shift, gain, *graph, readout="geodesic", unit=True, neighbours=9)
    parts = (maps["relative l1"], maps["relative linf"])
    return {**maps, "relative geodesic": geodesic, "product": Product(parts), "average": Product(parts, average=True)}


MAPS = make_maps()


def make_alignment(dtype: torch.dtype = torch.float64) -> Alignment:
    """Three spaces, all that an alignment can hold, and a way back that is not the inverse."""

    def cast(t: Tensor) -> Tensor:
        return t.to(dtype)

    left, right = cast(rows(5, 3, seed=1)), cast(rows(4, 3, seed=2))
    return Alignment(
        maps={
            "source": Affine(left, cast(rows(3, seed=3))),
            "target": Normalize(4) >> Affine(right, cast(rows(3, seed=4))),
            "third": Identity(3),
        },
        back={"target": Affine(cast(rows(3, 4, seed=5)), cast(rows(4, seed=6)))},
        spaces={
            "source": Space(
                dim=5,
                unit=False,
                fingerprint="3:00000000000000ff",
                mean=rows(5, seed=7).float(),
                canaries=rows(2, 5, seed=8).float(),
                canary_keys=torch.tensor([2**62, -5]),
                familiarity=(0.75, 0.125),
            ),
            "target": Space(dim=4, unit=True),
        },
        provenance={"method": "test", "params": {"b": None, "a": [1, 2.5, 1e-300]}, "words": "größer – ∞ as text"},
    )
