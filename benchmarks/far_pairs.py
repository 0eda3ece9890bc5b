"""Few pairs between spaces that are far apart: seeded alignment against the plain prototype of it.

`--data DIR` as for `seeds.py`; every two encoders of DIR are measured, in alphabetical order, of which all pairs reach
less than .985: 5,000 + 5,000 rows that share no item, 60 seeds, top-1 of 4,000 held-out items.
"""

from itertools import combinations
from pathlib import Path
from time import process_time

import torch
from torch import Tensor
from torch.nn.functional import normalize

from suture.aligners.polar import polar
from suture.aligners.unpaired.clouds import Clouds
from suture.aligners.unpaired.seeded import Seeded
from suture.aligners.unpaired.signatures import signatures

import results
from seeds import HELD, attempt, encoder, supervised, top1

HALF, SEEDS, NEAR = 5000, 60, 0.985


def prototype(clouds: Clouds, *, rounds: int = 40, batch: int = 2500, k: int = 20, seed_weight: float = 5.0) -> Tensor:
    """The least that does the job: signatures, soft pairs, 40 rounds of Procrustes on the mean of the 20 nearest."""
    x, y, seeds = clouds.x, clouds.y, clouds.seeds
    a, b = signatures(x, x[seeds[:, 0]]), signatures(y, y[seeds[:, 1]])
    known = x[seeds[:, 0]].T @ y[seeds[:, 1]] * seed_weight
    weight = polar(x.T @ y[torch.cat([(part @ b.T).topk(k).indices for part in a.split(2000)])].mean(1))
    g = torch.Generator().manual_seed(0)
    for _ in range(rounds):
        some = x[torch.randperm(len(x), generator=g)[:batch]]
        nearest = normalize(some @ weight, dim=1) @ y.T
        weight = (weight + polar(some.T @ y[nearest.topk(k).indices].mean(1) + known)) / 2
    return polar(weight)


def run(data: Path | None, *, quick: bool) -> None:
    """Measure every far pair of encoders; the table is written after each."""
    if data is None:
        raise SystemExit("far_pairs: give the dumps with --data DIR")
    folder = data / "wordnet"
    names = sorted(path.parent.name for path in folder.glob("*/fit.npy"))
    rows = []
    for old, new in combinations(names, 2):
        half = 500 if quick else HALF
        a, b = encoder(folder, old), encoder(folder, new)
        order = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))
        seeds, left, right, out = order.split([1000, half, half, len(a) - 1000 - 2 * half])
        every, held, some = torch.cat([seeds, left, right]), (a[out[:HELD]], b[out[:HELD]]), seeds[:SEEDS]
        best = supervised(a[every], b[every], held)
        if best >= NEAR:
            print(f"{old} -> {new}: {best:.3f} of all pairs, not far apart")
            continue
        pairs = torch.arange(SEEDS)[:, None].expand(-1, 2)
        clouds = Clouds.of(torch.cat([a[some], a[left]]), torch.cat([b[some], b[right]]), pairs)
        started = process_time()
        plain, turned = top1(prototype(clouds), clouds, *held), process_time()
        found, said, _ = attempt(Seeded(), clouds, held)
        times = f"{turned - started:.0f}, {process_time() - turned:.0f} s"
        alone = supervised(a[some], b[some], held)
        scores = (f"{score:.3f}" for score in (alone, plain, found, best))
        rows.append([f"{old} -> {new}", *scores, said, times])
        print(rows[-1], flush=True)
        if not quick:
            columns = (
                "pair",
                "the seeds alone",
                "prototype",
                "seeded",
                "all pairs",
                "evidence",
                "processor time of both",
            )
            results.write("far_pairs", results.markdown(columns, rows))
