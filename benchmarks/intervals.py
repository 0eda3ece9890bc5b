"""Whether the intervals of `suture gallery estimate` are honest: how often they hold what they should.

500 queries make the estimate; its interval, widened by sqrt(1 + n_est / n_test) to a prediction, should hold the mean
of other queries. Simulated worlds: each has its own encoders, gallery, pairs and queries, 1,100 others, each after a
row of its own; these worlds are independent. Real pairs (`--data DIR`, see quality.py): both directions, 500 others.
These are resamples of one corpus, not independent, and so counted apart; their maps are fitted once a budget.

Three budgets of pairs each; weights, the vector trained on labels, recall and order of backfill are chosen on the
queries of the estimate alone, and kept for the others. Bias: estimate less truth in standard errors of that difference,
mean over the simulated worlds. That of `dual-tuned` was -.67 in 104 worlds of 400 rows, where all queries were after
the same rows: folds keep an answer together, so its number is of answers that it has not seen.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import permutations, product
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture.aligners import Pairs, RotationRidge
from suture.aligners.measures.bootstrap import Bootstrap
from suture.stitching.gallery.inputs import Gallery, Inputs, Pool, Queries
from suture.stitching.gallery.maps import Maps, fit_maps
from suture.stitching.gallery.measure import measure
from suture.stitching.gallery.systems import Systems
from suture.stitching.gallery.table import LEVEL
from suture.stitching.gallery.verdict import ORDER

import results

SEEDS = 10
WORLDS = 40  # simulated ones a budget
SIMULATED = (100, 300, 1_000)
REAL = (500, 2_000, 8_000)
ESTIMATED = 500  # the fewest that `dual-tuned` is trained on
GALLERY = 2_000
POPULATION = 1_600
ROWS = 1_500
ASKED = 1_000  # real queries


@dataclass
class Upgrade:
    """Old and new rows of a gallery, pairs and queries; the gallery row that each query is after."""

    what: str
    gallery: tuple[Tensor, Tensor]
    pairs: tuple[Tensor, Tensor]
    queries: tuple[Tensor, Tensor]
    right: Tensor

    def inputs(self, some: Tensor) -> Inputs:
        """Everything, with some of the queries."""
        old, new = self.gallery

        def blocks() -> Iterator[Tensor]:
            return iter(torch.split(old, 8192))

        gallery = Gallery(blocks, lambda rows: old[rows], len(old), old.shape[1], self.what)
        pool = Pool(torch.ones(len(new)), lambda rows: new[rows], new.shape[1])
        queries = Queries(self.queries[1][some], self.queries[0][some], None, None, "queries")
        pairs = Pairs.of(*self.pairs)
        return Inputs(gallery, pool, queries, torch.arange(len(some)), self.right[some], pairs, "gallery", ())


def unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def simulated(seed: int, pairs: int) -> Upgrade:
    """Two linear encoders of one latent space, each with noise of its own; ten groups of items lie closer together."""
    draw = torch.Generator().manual_seed(1000 * seed + pairs)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    noise = [0.3 + 0.4 * float(torch.rand((), generator=draw)) for _ in range(2)]
    matrices = normal(24, 40), normal(24, 56)
    centres = 0.7 * normal(10, 24)

    def items(n: int) -> Tensor:
        return normal(n, 24) + centres[torch.randint(10, (n,), generator=draw)]

    def seen(latent: Tensor) -> tuple[Tensor, Tensor]:
        old, new = (unit((latent + s * normal(*latent.shape)) @ m) for s, m in zip(noise, matrices, strict=True))
        return old, new

    latent = items(GALLERY)
    right = torch.randperm(GALLERY, generator=draw)[:POPULATION]
    asked = latent[right] + 0.5 * normal(POPULATION, 24)
    return Upgrade(f"simulated {seed}, {pairs} pairs", seen(latent), seen(items(pairs)), seen(asked), right)


def real(folder: Path, old: str, new: str, seed: int, pairs: int) -> Upgrade:
    """Two real encoders: 1,000 queries and 1,500 gallery rows with their answers, drawn by the seed."""
    rng = np.random.default_rng(seed)

    def rows(part: str, some: Any) -> tuple[Tensor, Tensor]:
        a, b = (torch.from_numpy(np.load(folder / e / f"{part}.npy", mmap_mode="r")[some]).float() for e in (old, new))
        return a, b

    right = np.load(folder / "query_target.npy")
    order = rng.permutation(len(right))[:ASKED]
    right = right[order]
    others = np.setdiff1d(np.arange(len(np.load(folder / old / "gallery.npy", mmap_mode="r"))), right)
    kept = np.sort(np.concatenate([np.unique(right), rng.permutation(others)[: ROWS - len(np.unique(right))]]))
    answers = torch.from_numpy(np.searchsorted(kept, right))
    what = f"{old} -> {new}, {pairs} pairs"
    return Upgrade(what, rows("gallery", kept), rows("fit", slice(pairs)), rows("query", order), answers)


@dataclass(frozen=True)
class Case:
    """Whether the mean of a strategy, and its difference to staying, lie where they should; how far off the mean was,
    in standard errors.
    """

    mean: bool
    difference: bool
    off: float


def fitted(upgrade: Upgrade) -> Maps:
    """The maps of its pairs."""
    pairs = Pairs.of(*upgrade.pairs)
    return fit_maps(pairs, [RotationRidge(strength=1.0)], track=lambda items, what: items)


def covered(upgrade: Upgrade, maps: Maps) -> dict[str, Case]:
    """Each strategy of one upgrade."""

    def quiet(total: int, what: str) -> Any:
        return nullcontext(lambda rows: None)

    n = ESTIMATED
    here = upgrade.inputs(torch.arange(n))
    there = upgrade.inputs(torch.arange(n, len(upgrade.right)))
    found = measure(Systems(here, maps), traffic=None, smaller=False, seed=0, progress=quiet)
    later = measure(Systems(there, maps), traffic=None, smaller=False, like=found, seed=0, progress=quiet)
    names = [name for name in ORDER if name in found.metrics]
    boot = Bootstrap({name: found.judged(name) for name in names})
    truth = {name: float(later.judged(name).nanmean()) for name in names}
    wider = sqrt(1 + n / (len(upgrade.right) - n))
    out = {}
    for name in names:
        pairs = [(boot.mean(name, LEVEL), truth[name])]
        if name != "stay":
            pairs.append((boot.difference(name, "stay", LEVEL), truth[name] - truth["stay"]))
        inside = [
            i.estimate - (i.estimate - i.low) * wider <= value <= i.estimate + (i.high - i.estimate) * wider
            for i, value in pairs
        ]
        first, value = pairs[0]
        error = wider * (first.high - first.low) / 2 / 1.645
        out[name] = Case(inside[0], inside[-1], (first.estimate - value) / error if error else 0.0)
    return out


def simulations(world: int, pairs: int) -> list[dict[str, Case]]:
    """The cases of one world."""
    upgrade = simulated(world, pairs)
    return [covered(upgrade, fitted(upgrade))]


def resamples(folder: Path, old: str, new: str, pairs: int, seeds: int) -> list[dict[str, Case]]:
    """Those of real encoders, whose pairs are the same whatever the seed."""
    drawn = [real(folder, old, new, seed, pairs) for seed in range(seeds)]
    maps = fitted(drawn[0])
    return [covered(upgrade, maps) for upgrade in drawn]


def run(data: Path | None, *, quick: bool) -> None:
    """Count how often the intervals hold what they should, by strategy; a process a core."""
    folders = [] if data is None else sorted(path.parent for path in data.glob("*/query_target.npy"))
    seen: dict[str, list[dict[str, Case]]] = {"simulated": [], "real": []}
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = {}
        for folder in folders:
            encoders = sorted(path.parent.name for path in folder.glob("*/fit.npy"))
            for (old, new), pairs in product(permutations(encoders, 2), REAL):
                job = pool.submit(resamples, folder, old, new, pairs, 1 if quick else SEEDS)
                waiting[job] = ("real", f"{old} -> {new}, {pairs} pairs")
        for world, pairs in product(range(1 if quick else WORLDS), SIMULATED):
            waiting[pool.submit(simulations, world, pairs)] = ("simulated", f"{world}, {pairs} pairs")
        for job in as_completed(waiting):
            kind, what = waiting[job]
            seen[kind] += job.result()
            print(kind, what, len(seen[kind]), flush=True)
            write(seen)


def write(seen: dict[str, list[dict[str, Case]]]) -> None:
    """The table of all that was seen so far: a long run may be stopped."""
    table = []
    for name in ORDER:
        found = {kind: [c[name] for c in cases if name in c] for kind, cases in seen.items()}
        cells = []
        for each in (*found.values(), [c for cases in found.values() for c in cases]):
            cells.append(share([c.mean for c in each]))
            cells.append("-" if name == "stay" else share([c.difference for c in each]))
        off = [c.off for c in found["simulated"]]
        table.append([name, *cells[:-1], f"{np.mean(off):+.2f}" if off else "-"])
    columns = ("strategy", "simulated: mean", "difference", "real: mean", "difference", "all: mean", "bias")
    counts = ", ".join(
        f"{len(cases)} {what} (noise {noise(len(cases)):.1%})"
        for what, cases in (("simulated worlds", seen["simulated"]), ("real resamples", seen["real"]))
    )
    whole = sum(map(len, seen.values()))
    results.write(
        "intervals",
        f"How often 90 % intervals hold what they should: {counts}; together {whole} ({noise(whole):.1%}). An honest "
        "90 % comes out within the noise of it nine times in ten.",
        (__doc__ or "").split("\n\n", 1)[1].strip(),
        results.markdown(columns, table),
    )


def share(inside: list[bool]) -> str:
    """Of all of them."""
    return f"{np.mean(inside):.0%}" if inside else "-"


def noise(cases: int) -> float:
    """How far a share of 90 % of so many cases comes out from it, nine times in ten."""
    return 1.645 * sqrt(0.9 * 0.1 / max(1, cases))
