"""Pictures: curves over anchors, and what one autoencoder's decoder makes of another's vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from suture.aligners import Pairs, Survey
from suture.aligners.fit import fit

import results
from .encoders import AUTOENCODERS, Images, dumps, kept_decoder
from .methods import TRANSLATORS
from .table import anchors_of


def curves(values: Mapping[str, Sequence[float]], counts: Sequence[int], path: Path) -> None:
    """Accuracy by number of anchors."""
    figure, axes = plt.subplots(figsize=(7.6, 3.6), dpi=100)
    for name, line in values.items():
        style = "k:" if name == "no-stitch" else "-o"
        axes.plot(counts, line, style, label=name, markersize=3, linewidth=2 if name.startswith("ours") else 1)
    axes.set(xscale="log", xlabel="anchors", ylabel="accuracy, Fashion-MNIST")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


@torch.inference_mode()
def reconstructions(images: Images, cache: Path, epochs: int, path: Path) -> str:
    """A section: autoencoder A's vectors in autoencoder B's decoder."""
    vectors = dumps("Fashion-MNIST", images, cache, epochs)
    a, b = AUTOENCODERS
    decode = kept_decoder("Fashion-MNIST", b, images, cache, epochs)
    (train_a, test_a), (train_b, test_b) = vectors[a], vectors[b]
    rows: list[tuple[str, Tensor]] = [
        ("images", images.test),
        ("own encoder", decode(test_b)),
        ("as they are", decode(test_a)),
    ]
    for count in (train_a.shape[1], 1000):
        pick = anchors_of(len(train_a), count, 0)
        x, y = train_a[pick], train_b[pick]
        auto = fit(Survey.of(Pairs.of(x, y), canaries=False)).translate()
        rows.append((f"ortho, {count}", decode(TRANSLATORS["ortho"](x, y)(test_a))))
        rows.append((f"auto, {count}", decode(auto(test_a))))
    errors = [float((image - images.test).square().mean()) for _, image in rows]
    grey = float((images.test - images.train.mean(0)).square().mean())
    figure, axes = plt.subplots(len(rows), 10, figsize=(7, 0.72 * len(rows)), dpi=90)
    for (name, shown), line in zip(rows, axes, strict=True):
        for image, place in zip(shown, line, strict=False):
            place.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
            place.axis("off")
        line[0].text(-1.0, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=7)
    figure.subplots_adjust(left=0.2, right=0.99, top=0.99, bottom=0.01, wspace=0.05, hspace=0.05)
    figure.savefig(path)
    plt.close(figure)
    return "\n\n".join(
        (
            "## An autoencoder's decoder behind another encoder",
            f"The decoder of {b} on vectors of {a} (64 dims both), test images; the mean image has error {grey:.4f}.",
            results.markdown(
                ("vectors", "mean squared error"),
                [[name, f"{error:.4f}"] for (name, _), error in zip(rows[1:], errors[1:], strict=True)],
            ),
            "![reconstructions](stitching_autoencoders.png)",
        )
    )
