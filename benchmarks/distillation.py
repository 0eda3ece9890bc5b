"""What similarity distillation is worth: nDCG@10 of new queries on the mapped gallery, against the better closed form.

`--data DIR` as in benchmarks/quality.py. Distillation is fitted with its defaults, which were tuned on cross-validated
pairs; the queries here were used for nothing else.
"""

from itertools import permutations
from pathlib import Path
from time import perf_counter

from suture.aligners import Distill, Pairs, Procrustes, Ridge, Survey
from suture.aligners.measures.bootstrap import Bootstrap

import results
from quality import ndcg, right_rows, rows

BUDGETS = (2_000, 8_000)


def measure(folder: Path, old: str, new: str, budget: int) -> list[str]:
    """One row of the table."""
    right = right_rows(folder)
    x, y = rows(folder / old, "fit")[:budget], rows(folder / new, "fit")[:budget]
    gallery, queries = rows(folder / old, "gallery"), rows(folder / new, "query")
    survey = Survey.of(Pairs.of(x, y))
    scores, seconds = {}, 0.0
    for aligner in (Procrustes(), Ridge(), Distill()):
        started = perf_counter()
        alignment = aligner.fit_survey(survey)
        seconds = perf_counter() - started  # of the last, which is distillation
        scores[aligner.name] = ndcg(alignment, queries, gallery, right)
    boot = Bootstrap(scores)
    means = {name: boot.mean(name).estimate for name in scores}
    better = max(("procrustes", "ridge"), key=means.__getitem__)
    gain = boot.difference("distill", better)
    share = [value / means[better] for value in (gain.estimate, gain.low, gain.high)]
    return [
        f"{folder.name}: {old} -> {new}, {len(x):,} pairs",
        *(f"{value:.4f}" for value in means.values()),
        f"{share[0]:+.1%} [{share[1]:+.1%}, {share[2]:+.1%}]",
        f"{seconds:.0f} s",
    ]


def run(data: Path | None, *, quick: bool) -> None:
    """Measure every ordered pair of encoders of every set that has queries."""
    if data is None:
        raise SystemExit("distillation: give the dumps with --data DIR")
    table = []
    for folder in sorted(path.parent for path in data.glob("*/query_target.npy")):
        encoders = sorted(path.parent.name for path in folder.glob("*/fit.npy"))
        for old, new in permutations(encoders, 2):
            for budget in BUDGETS[:1] if quick else BUDGETS:
                table.append(measure(folder, old, new, budget))
                print(table[-1], flush=True)
    if not quick:
        columns = ("pair", "procrustes", "ridge (GCV)", "distill", "distill less the better, of it", "fit")
        results.write("distillation", "nDCG@10 of new queries on the mapped gallery.", results.markdown(columns, table))
