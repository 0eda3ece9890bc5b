"""What `auto` is worth: nDCG@10 of new queries on the whole mapped gallery, at several budgets of pairs.

`--data DIR` holds one folder a set, in it one folder an encoder with `fit.npy`, `gallery.npy` and `query.npy`, rows of
all encoders aligned, and `query_target.npy`: the one right gallery row of each query. Every ordered pair of encoders of
a set is measured. `auto` is given no labels; it is compared with centred Procrustes and ridge with GCV.
"""

from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from suture.aligners import Alignment, Pairs, Procrustes, Ridge, Survey
from suture.aligners.fit import fit
from suture.aligners.measures.bootstrap import Bootstrap
from suture.aligners.measures.retrieval import Relevant, rank_metrics, search

import results

BUDGETS = (500, 2_000, None)


def rows(folder: Path, part: str) -> Tensor:
    """One dump in float32."""
    return torch.from_numpy(np.load(folder / f"{part}.npy")).float()


def ndcg(alignment: Alignment | None, queries: Tensor, gallery: Tensor, right: Tensor) -> Tensor:
    """nDCG@10 per query of the mapped gallery, or of the gallery as it is."""
    mapped = gallery if alignment is None else alignment.translate()(gallery)
    own = torch.arange(len(queries))
    found = search(queries, mapped, k=1, relevant=Relevant(own, right, mapped[right]))
    assert found.rank is not None
    return rank_metrics(found.rank, own, len(queries))["ndcg@10"]


def right_rows(folder: Path) -> Tensor:
    """The one right gallery row of each query."""
    return torch.from_numpy(np.load(folder / "query_target.npy")).long()


def measure(folder: Path, old: str, new: str, budget: int | None) -> list[str]:
    """One row of the table."""
    right = right_rows(folder)
    x, y = rows(folder / old, "fit")[:budget], rows(folder / new, "fit")[:budget]
    gallery, queries = rows(folder / old, "gallery"), rows(folder / new, "query")
    survey = Survey.of(Pairs.of(x, y))
    auto = fit(survey)
    columns = {
        "stay": ndcg(None, rows(folder / old, "query"), gallery, right),
        "re-embed": ndcg(None, queries, rows(folder / new, "gallery"), right),
        "procrustes": ndcg(Procrustes().fit_survey(survey), queries, gallery, right),
        "ridge": ndcg(Ridge().fit_survey(survey), queries, gallery, right),
        "auto": ndcg(auto, queries, gallery, right),
    }
    boot = Bootstrap(columns)
    means = {name: boot.mean(name).estimate for name in columns}
    better = max(("procrustes", "ridge"), key=means.__getitem__)
    gain = boot.difference("auto", better)
    chosen = f"{auto.provenance['method']} {auto.provenance['params'].get('strength') or ''}".strip()
    return [
        f"{folder.name}: {old} -> {new}, {len(x):,} pairs",
        *(f"{means[name]:.4f}" for name in columns),
        f"{gain.estimate:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
        chosen,
    ]


def run(data: Path | None, *, quick: bool) -> None:
    """Measure every ordered pair of encoders of every set that has queries."""
    assert data is not None  # run.py sees to it
    table, gains = [], []
    for folder in sorted(path.parent for path in data.glob("*/query_target.npy")):
        encoders = sorted(path.parent.name for path in folder.glob("*/fit.npy"))
        for old, new in permutations(encoders, 2):
            for budget in BUDGETS[:1] if quick else BUDGETS:
                table.append(measure(folder, old, new, budget))
                gains.append(float(table[-1][6].split()[0]))
                print(table[-1], flush=True)
    columns = ("pair", "stay", "re-embed", "procrustes", "ridge", "auto", "auto less the better", "chosen")
    summary = (
        f"auto less the better of the two: mean {np.mean(gains):+.4f}, worst {min(gains):+.4f}, over {len(gains)} rows."
    )
    results.write(
        "quality", "nDCG@10 of new queries on the mapped gallery; " + summary, results.markdown(columns, table)
    )
