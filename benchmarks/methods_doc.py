"""Writes docs/methods.md from the registry: `python benchmarks/methods_doc.py [--data DIR]`.

With the dumps (see benchmarks/quality.py and emoji.py) the held-out results are measured again and kept in
`results/methods.json`; without them they are read from there.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from suture.aligners import (
    ALIGNERS,
    Aligner,
    Alignment,
    LabelledAligner,
    MultiwayAligner,
    Pairs,
    RefusedError,
    Survey,
    SutureError,
    UnpairedAligner,
)
from suture.aligners.unpaired.base import NoEvidenceError
from suture.stitching.models import Head

import results
from emoji import judged
from quality import ndcg, right_rows, rows

SEEDS = 20

HEAD = """# Methods

Made from the registry by `python benchmarks/methods_doc.py`; the docstring of each class has its equation and its
source. n rows, d dims of either side, m spaces. An affine method folds into a linear layer and composes with other
affine maps; the others are put into a model whole (`module()`), and their other direction is fitted, not inverted.
"Invertible" says what was found on 400 planted pairs between equal dims: the exact inverse, or a way back by least
squares.

Held out: `wordnet` is nDCG@10 of 2,500 new queries on 15,000 mapped glosses, minilm-l6 -> mpnet-base, 2,000 pairs
(a full re-embedding has .295, staying with the old model .229); `emoji` the share of 645 images that have their
name among the five nearest, efficientnet-lite0 -> minilm-l6, 966 pairs. Both by cosine, each space centred for
emoji. Methods that need no pairs get less: 4,000 rows of the one encoder and 4,000 other rows of the other (483 and
483 of emoji), with 20 seed pairs where a few pairs are needed; "refused" is what they say themselves, where nothing
speaks for their map. Those that need labels get the labels of the same rows (45 kinds of glosses, 9 groups of
emoji) and no pairs: a translation through so few names finds the right kind, not the right row. Those for many
spaces are given two; head-distill a logistic head on the labels of the same pairs' target rows. What few pairs and none
give with 7,000 rows a side, where vecmap gets there too, is in [seeds](../benchmarks/results/seeds.md). More on emoji
in [emoji](../benchmarks/results/emoji.md), on distillation in [distillation](../benchmarks/results/distillation.md).
`suture methods NAME` shows a method's equation and parameters."""

COST = {
    "affine": "n d^2 + d^3",
    "mean-shift": "n d",
    "distill": "n d^2 + steps batch d (d + batch)",
    "distill-mlp": "as distill",
    "head-distill": "n d^2 + steps n d c, c classes",
    "mlp": "n d^2 + steps batch d hidden",
    "landmark": "n k^2 + n d k, k landmarks",
    "local": "n d^2 + k d^3, k cells",
    "relative": "n d k, k anchors; geodesic n^2 log n",
    "relative-product": "as relative, for each similarity",
    "sparse-units": "n d^2 + d^2 by sweeps by target units",
    "shared-private": "n d^2 + draws n d^2",
    "seeded": "rounds batch n d",
    "anchor-bootstrap": "rounds pool^2 k + rounds batch n d",
    "mini-vec2vec": "rounds batch n d, and k-means",
    "vecmap": "n^2 d + rounds n^2 d, n at most 4,000",
    "gromov-wasserstein": "rounds n^3, n at most 1,000 nodes",
    "wasserstein-procrustes": "rounds n^2 d + n^3",
    "graph-matching": "restarts n^3, n nodes",
    "prototype-transport": "starts turns (n k + n d k), k prototypes",
    "assignment": "n d^2 + rounds n K, K prototypes",
    "concepts": "n d k, k concepts; probes n d^2",
    "simplex": "n d^2 + d^3",
    "gpa": "n (m d)^2 + rounds m d^3",
    "gcca": "n (m d)^2 + (m d)^3",
    "srm": "n (m d)^2 + rounds m d^3",
    "bind": "n (m d)^2 + m d^3",
}


def gives(kind: type[Aligner]) -> str:
    """What comes out."""
    if kind.needs == "many spaces":
        return "affine map for each space"
    if kind.needs == "labels":
        return "affine map for each space" if kind.affine else "map that bends for each space"
    return "affine map" if kind.affine else "map that bends"


def way_back(kind: type[Aligner]) -> str:
    """Whether a fit on planted pairs can be undone."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 16, generator=g)
    y = x @ torch.linalg.qr(torch.randn(16, 16, generator=g))[0] + 0.1 * torch.randn(400, 16, generator=g)
    if kind.needs == "many spaces":
        return "yes, to every space"
    if kind.needs == "labels":
        return "least squares"
    if kind.needs not in ("pairs", "a head"):
        return "yes"  # a rotation
    given = (Head(torch.randn(5, 16, generator=g), torch.zeros(5)),) if kind.needs == "a head" else ()
    try:
        found = kind(*given).fit(x, y)
    except SutureError as error:
        return f"not tried ({error})"
    try:
        found.inverse()
    except RefusedError:
        return "least squares" if kind.affine else "no"
    return "yes"


def centred_scores(alignment: Alignment, x: torch.Tensor, y: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Cosines of mapped ``x`` and ``y`` about the mean of the target."""
    mapped, there = alignment.translate()(x) - mean, y - mean
    return torch.nn.functional.normalize(mapped, dim=1) @ torch.nn.functional.normalize(there, dim=1).T


def measure(data: Path, names: Sequence[str]) -> Iterator[tuple[str, dict[str, float | str]]]:
    """Held-out results of those methods on both sets, one method after the other."""
    words, old, new = data / "wordnet", "minilm-l6", "mpnet-base"
    right, queries, gallery = right_rows(words), rows(words / new, "query"), rows(words / old, "gallery")
    glosses = Fit(rows(words / old, "fit"), rows(words / new, "fit"), labels(words), budget=2000, halves=4000)
    sides = [data / "emoji" / name for name in ("efficientnet-lite0", "minilm-l6")]
    (x, y), (a, b) = ([rows(side, part) for side in sides] for part in ("fit", "test"))
    images = Fit(x, y, labels(data / "emoji"), budget=len(x), halves=len(x) // 2)

    def on_glosses(kind: type[Aligner]) -> float:
        return float(ndcg(glosses.of(kind), queries, gallery, right).mean())

    def on_images(kind: type[Aligner]) -> float:
        return float(judged(centred_scores(images.of(kind), a, b, y.mean(0)))["top-5"].mean())

    for name in names:
        found: dict[str, float | str] = {}
        for key, score in (("wordnet", on_glosses), ("emoji", on_images)):
            try:
                found[key] = round(score(ALIGNERS[name]), 4)
            except NoEvidenceError:
                found[key] = "refused: no evidence"
            except SutureError as error:
                found[key] = "needs equal dims" if "equal dims" in str(error) else str(error).split(";")[0]
        yield name, found


def labels(folder: Path) -> list[str]:
    """The label of each row that is fitted on."""
    return [str(label) for label in np.load(folder / "fit_labels.npy").tolist()]


@dataclass
class Fit:
    """One set and what each kind of method is given of it.

    The first ``budget`` rows as pairs, as two spaces of many, or with their labels alone; or ``halves`` rows of the
    source and as many others of the target, without pairs but for 20 seeds where a few pairs are needed.
    """

    x: torch.Tensor
    y: torch.Tensor
    labels: list[str]
    budget: int
    halves: int

    @cached_property
    def survey(self) -> Survey:
        """Of the pairs."""
        return Survey.of(Pairs.of(self.x[: self.budget], self.y[: self.budget]))

    @cached_property
    def head(self) -> Head:
        """Names the labels of target rows: logistic regression on those of the pairs."""
        model = LogisticRegression(max_iter=100, C=10, tol=1e-3)
        return Head.of(model.fit(self.y[: self.budget].numpy(), self.labels[: self.budget]))

    def of(self, kind: type[Aligner]) -> Alignment:
        """The fit with defaults. Raises `SutureError` where there is none that can translate."""
        aligner = kind(*((self.head,) if kind.needs == "a head" else ()))
        both = {"source": self.x[: self.budget], "target": self.y[: self.budget]}
        if isinstance(aligner, MultiwayAligner):
            found = aligner.fit_spaces(both)
        elif isinstance(aligner, LabelledAligner):
            found = aligner.fit_labelled(both, dict.fromkeys(both, self.labels[: self.budget]))
        elif isinstance(aligner, UnpairedAligner):
            seeds = SEEDS if aligner.needs == "few pairs" else 0
            y = torch.cat([self.y[:seeds], self.y[self.halves : 2 * self.halves - seeds]])
            known = [(i, i) for i in range(seeds)] if seeds else None
            found = aligner.fit_unpaired(self.x[: self.halves], y, seeds=known)
        else:
            found = aligner.fit_survey(self.survey)
        found.translate()
        return found


def cell(value: float | str | None) -> str:
    """A number, or the reason why there is none."""
    if value is None:
        return "not measured yet"
    return f"{value:.3f}" if isinstance(value, float) else value


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--only", nargs="*", choices=ALIGNERS, help="measure these again and leave the others as they are"
    )
    asked = parser.parse_args()
    store = results.FOLDER / "methods.json"
    held_out = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    if asked.data is not None:
        for name, found in measure(asked.data, asked.only or list(ALIGNERS)):
            print(name, found, flush=True)
            held_out[name] = found
            ordered = {each: held_out[each] for each in ALIGNERS if each in held_out}
            store.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    table = [
        [
            f"`{name}`",
            kind.summary,
            kind.needs,
            gives(kind),
            way_back(kind),
            COST.get(name, COST["affine"] if kind.affine else "-"),
            cell(held_out.get(name, {}).get("wordnet")),
            cell(held_out.get(name, {}).get("emoji")),
            ", ".join(f"`{f.name}={f.default}`" for f in fields(kind)) or "-",
            kind.paper,
        ]
        for name, kind in ALIGNERS.items()
    ]
    columns = (
        "method",
        "what it does",
        "needs",
        "gives",
        "invertible",
        "cost",
        "wordnet",
        "emoji",
        "parameters",
        "source",
    )
    text = results.markdown(columns, table).replace("| ---:", "| ---")
    path = Path(__file__).parents[1] / "docs" / "methods.md"
    path.write_text(f"{HEAD}\n\n{text}\n\n{REST}\n", encoding="utf-8")


REST = """## Beside the table

Commands and functions that are no method of their own:

* `suture pick`, `suture extend` (`suture.aligners.add_space`): two spaces out of many; a space more, the others as they
  were.
* `bind --set fuse=text=a+b,image=c+d`: one space more of each modality, weights fixed or routed
  (`aligners.multiway.fusion`; OmniBind, FreeBind), judged beside equal weights and the best single space, with what
  every expert finds by itself.
* `suture split`, `suture contrast` (`aligners.units.split`): the shared and private part of either space by CCA;
  contrastive PCA (Abid et al. 2018).
* `suture units` (`aligners.units.clusters`): units matched one by one, one to one and in spectral clusters, beside
  canonical correlation (Li et al. 2016).
* `suture truncate` (`aligners.units.order`): any map or alignment in the principal order of its target and cut short
  (Kusupati et al. 2022).
* `suture recombine` (`aligners.units.recombine`): maps from elsewhere joined block by block on a few pairs (Zhang et
  al. 2024).
* `suture concepts` (`aligners.named.agreement`): AUROC of named coordinates, agreement of encoders on them, and what
  makes a match.
* `suture match --by transport` (`aligners.transport.sinkhorn`): Sinkhorn's plan in the log domain (Cuturi 2013);
  partial with `--share` (Chapel et al. 2020), unbalanced with `--rho` (Chizat et al. 2018): rows without a mate stay
  alone. In Python also `barycentric`, where a plan sends each row on average.
* `suture match --by local-cka --seeds` (`aligners.measures.local_cka`): the known pairs alone, no map (Maniparambil et
  al. 2024), in its exact fast form.
* `aligners.unpaired.anchors`: `bootstrapped`, anchors found from a few pairs (Cannistraci et al. 2023).

`rotation-ridge` is the closed-form path of lambda-orthogonality: its `strength` goes from least squares (0) to the
rotation. On emoji the subspace methods beat ridge in top-1 (.208 with CCA and .209 with PLS against .152), and the
affine `rotation-ridge` is as good (.212); local CKA (.036) and graph matching (.110 against .211 in one-to-one
matching) do not, with 966 pairs in 1,280 dims. `sparse-units` chooses its penalty between 384 and 768 dims in 13 s of
processor time (2,000 pairs): .0116, at which a target unit has 196 source units on average."""


if __name__ == "__main__":
    main()
