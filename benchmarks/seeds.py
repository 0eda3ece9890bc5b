"""Few pairs and none: top-1 among held-out items of maps from two halves that share no item.

`--data DIR` holds a set "wordnet": `fit.jsonl` and `gallery.jsonl` with a `text` a row, and a folder an encoder with
`fit.npy` and `gallery.npy`. The rows are drawn into two halves of 7,000, up to 1,000 seeds and 4,000 items held out.
"lsa" is a third space made here: TF-IDF of the texts and its 256 first singular vectors, as far from a sentence encoder
as a text space can be; its halves have 5,000 rows.

What was measured is kept in `results/seeds.json`, row by row, and not measured again: a run that was stopped goes on.
Delete the file to measure anew, after every change of the methods.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from suture.aligners import ALIGNERS, Procrustes, RefusedError, UnpairedAligner
from suture.aligners.unpaired.clouds import Clouds
from suture.aligners.unpaired.seeded import Seeded

import results

COUNTS = (5, 10, 20, 60, 200, 1000)
HELD = 4000


def encoder(folder: Path, name: str) -> Tensor:
    """All rows of a set in one encoder, of unit length."""
    if name == "lsa":
        return lsa(folder)
    parts = [torch.from_numpy(np.load(folder / name / f"{part}.npy")).float() for part in ("fit", "gallery")]
    return normalize(torch.cat(parts), dim=1)


def lsa(folder: Path) -> Tensor:
    """Latent semantic analysis of the texts, 256 dims."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    lines = [line for part in ("fit", "gallery") for line in (folder / f"{part}.jsonl").open(encoding="utf-8")]
    texts = [json.loads(line)["text"] for line in lines]
    counts = TfidfVectorizer(sublinear_tf=True, min_df=3).fit_transform(texts)
    rows = TruncatedSVD(256, random_state=0).fit_transform(counts)
    return normalize(torch.from_numpy(rows).float() + 1e-6, dim=1)


def top1(weight: Tensor, clouds: Clouds, x: Tensor, y: Tensor) -> float:
    """Share of the held-out rows ``x`` whose nearest of ``y`` by cosine, both centred, is their own."""
    mapped = normalize((x - clouds.mean_x.float()) @ weight, dim=1)
    there = normalize(y - clouds.mean_y.float(), dim=1)
    return float(((mapped @ there.T).argmax(1) == torch.arange(len(x))).double().mean())


def supervised(x: Tensor, y: Tensor, held: tuple[Tensor, Tensor]) -> float:
    """Top-1 of centred Procrustes on these pairs."""
    mapped = Procrustes().fit(x, y).translate()(held[0])
    there = normalize(held[1] - y.mean(0), dim=1)
    return float(
        ((normalize(mapped - y.mean(0), dim=1) @ there.T).argmax(1) == torch.arange(len(mapped))).double().mean()
    )


def attempt(aligner: UnpairedAligner, clouds: Clouds, held: tuple[Tensor, Tensor]) -> tuple[float, str, float]:
    """Top-1 of the map, kept or not; the evidence, or the refusal; and seconds of the whole fit."""
    started = perf_counter()
    try:
        weight, facts = aligner.proven(clouds, 0)
        said = ", ".join(f"{k} {v:.2f}" for k, v in facts.items() if v is not None)
    except RefusedError as error:
        weight, said = aligner.solve(clouds, 0), f"refused: {str(error).split('. ')[1]}"
    return top1(weight, clouds, *held), said, perf_counter() - started


def kept(key: str, measure: Callable[[], tuple[float, str, float]], *, quick: bool) -> tuple[float, str, float]:
    """What ``measure`` gives, from `results/seeds.json` where it is there."""
    store = results.FOLDER / "seeds.json"
    known = json.loads(store.read_text(encoding="utf-8")) if store.exists() and not quick else {}
    if key not in known:
        known[key] = measure()
        print(key, known[key], flush=True)
        if not quick:
            store.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    found, said, seconds = known[key]
    return found, said, seconds


def run(data: Path | None, *, quick: bool) -> None:
    """Measure the pairs of encoders, write the tables and the figure."""
    if data is None:
        raise SystemExit("seeds: give the dumps with --data DIR")
    folder = data / "wordnet"
    curves, tables = {}, []
    for old, new, half in (("minilm-l6", "mpnet-base", 7000), ("minilm-l6", "lsa", 5000)):
        half = 1000 if quick else half
        a, b = encoder(folder, old), encoder(folder, new)
        order = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))
        seeds, left, right, out = order.split([1000, half, half, len(a) - 1000 - 2 * half])
        held = (a[out[:HELD]], b[out[:HELD]])
        points, rows = [], []
        for count in COUNTS[:2] if quick else COUNTS:
            some = seeds[:count]
            x, y = torch.cat([a[some], a[left]]), torch.cat([b[some], b[right]])
            clouds = Clouds.of(x, y, torch.arange(count)[:, None].expand(-1, 2))
            key = f"{old} -> {new}, {count} seeds"
            found, said, seconds = kept(key, partial(attempt, Seeded(), clouds, held), quick=quick)
            points.append((count, found, supervised(a[some], b[some], held)))
            rows.append([f"{count:,}", f"{found:.3f}", f"{points[-1][2]:.3f}", said, f"{seconds:.0f} s"])
        every = torch.cat([seeds, left, right])
        best = supervised(a[every], b[every], held)
        rows.append([f"{len(every):,} pairs", "-", f"{best:.3f}", "-", "-"])
        curves[f"{old} -> {new}"] = points
        head = f"## {old} -> {new}, {half:,} + {half:,} rows that share no item, top-1 of {len(held[0]):,}"
        columns = ("seeds", "seeded", "the seeds alone", "evidence", "time")
        tables.append(f"{head}\n\n{results.markdown(columns, rows)}")
        if old == "minilm-l6" and new == "mpnet-base":
            clouds = Clouds.of(a[left], b[right], torch.empty((0, 2), dtype=torch.int64))
            rows = []
            for name, kind in ALIGNERS.items():
                if issubclass(kind, UnpairedAligner) and not kind.fewest_seeds:
                    key = f"{old} -> {new}, {name}"
                    found, said, seconds = kept(key, partial(attempt, kind(), clouds, held), quick=quick)
                    rows.append([f"`{name}`", f"{found:.4f}", said, f"{seconds:.0f} s"])
            unpaired = results.markdown(("method", "top-1", "evidence", "time"), rows)
            tables.append(f"## The same halves without any pair (chance: {1 / len(held[0]):.4f})\n\n{unpaired}")
            curves[f"{old} -> {new}"].insert(0, (0, max(float(r[1]) for r in rows), 0.0))
    if not quick:
        results.write("seeds", *tables)
        draw(curves, results.FOLDER / "seeds.svg")


def draw(curves: dict[str, list[tuple[int, float, float]]], path: Path) -> None:
    """Top-1 against the number of seeds: solid with unpaired rows, dashed the seeds alone."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "suture"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for colour, (name, points) in enumerate(curves.items()):
        counts, seeded, alone = zip(*points, strict=True)
        axes.plot(counts, seeded, "o-", color=f"C{colour}", label=f"{name}, seeded")
        axes.plot(counts, alone, "x--", color=f"C{colour}", label=f"{name}, seeds alone")
    axes.set_xscale("symlog", linthresh=5)
    axes.set_xticks((0, *COUNTS), [f"{count:,}" for count in (0, *COUNTS)])
    axes.set(xlabel="known pairs", ylabel="top-1 of held-out items", ylim=(-0.02, 1.02))
    axes.legend(fontsize="small", frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
