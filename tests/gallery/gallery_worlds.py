"""Two encoders of the same items as files, the new one seeing better; all that the gallery commands read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


def unit(rows: Any) -> Rows:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@dataclass
class World:
    """``count`` items through an old (24 dims) and a new encoder (32 dims); queries look for one of the first each."""

    folder: Path
    count: int = 600
    queries: int = 120
    pairs: int = 400
    old_noise: float = 0.5
    new_noise: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        latent = {"gallery": rng.normal(size=(self.count, 12)), "pairs": rng.normal(size=(self.pairs, 12))}
        self.right = rng.permutation(self.count)[: self.queries]
        latent["queries"] = latent["gallery"][self.right] + 0.45 * rng.normal(size=(self.queries, 12))
        self.old, self.new = {}, {}
        for sides, dim, noise in ((self.old, 24, self.old_noise), (self.new, 32, self.new_noise)):
            matrix = rng.normal(size=(12, dim))
            for part, rows in latent.items():
                sides[part] = unit((rows + noise * rng.normal(size=rows.shape)) @ matrix)
        self.write()

    def write(self) -> None:
        for side, parts in (("old", self.old), ("new", self.new)):
            for part, rows in parts.items():
                np.save(self.folder / f"{part}.{side}.npy", rows)
        np.save(self.folder / "right.npy", self.right)

    def words(self, *, labels: bool = True, pool: bool = True, old: bool = True) -> list[object]:
        f = self.folder
        words: list[object] = ["gallery", "estimate", "--old-gallery", f / "gallery.old.npy"]
        words += ["--old-pairs", f / "pairs.old.npy", "--new-pairs", f / "pairs.new.npy"]
        if labels:
            words += ["--new-queries", f / "queries.new.npy", "--relevant", f / "right.npy"]
        if labels and old:
            words += ["--old-queries", f / "queries.old.npy"]
        if pool:
            words += ["--pool", f / "gallery.new.npy"]
        return [*words, "--method", "procrustes"]
