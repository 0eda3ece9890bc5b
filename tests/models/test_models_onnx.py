"""Stitched, folded and exported ONNX models against the parts, run by onnxruntime itself; and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx_models import (
    C,
    P,
    Q,
    build,
    classifier_head,
    conv_head,
    head,
    node,
    numbers,
    port,
    run,
    tokens_encoder,
    vectors_encoder,
)

from suture.aligners import (
    ALIGNERS,
    Affine,
    Alignment,
    Normalize,
    RefusedError,
    RelativeRepresentation,
    Space,
    SutureError,
    UsageError,
)
from suture.stitching.models import Head, model_map
from suture.stitching.models.export import export
from suture.stitching.models.graph import map_model
from suture.stitching.models.onnxfile import read_model, require_agreement, write_model
from suture.stitching.models.onnxfold import fold_onnx
from suture.stitching.models.onnxstitch import stitch_onnx


def a_map(p: int = P, q: int = Q, seed: int = 0) -> Affine:
    g = torch.Generator().manual_seed(seed)
    return Affine(torch.randn(p, q, generator=g), torch.randn(q, generator=g))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path


def assert_close(came: Any, expected: Any, allowed: float = 1e-5) -> None:
    np.testing.assert_allclose(came, expected, rtol=allowed, atol=allowed)


@pytest.mark.parametrize("rows", ["n", None, 3])
@pytest.mark.parametrize("width", [P, "d"])
def test_three_parts_become_one(files: Path, rows: Any, width: Any) -> None:
    encoder, decoder = vectors_encoder(files, rows=rows, width=width), head(files)
    done = stitch_onnx(encoder, a_map(), decoder, files / "out.onnx")
    x = numbers(9, 3, 5)
    (scores,) = run(files / "out.onnx", x=x)
    assert_close(scores, run(decoder, vectors=a_map()(run(encoder, x=x)[0]))[0])
    assert [each["name"] for each in done["inputs"] + done["outputs"]] == ["x", "scores"]
    assert done["difference"] < 1e-5
    if rows != 3:
        assert run(files / "out.onnx", x=numbers(9, 11, 5))[0].shape == (11, C)


def test_a_decoder_of_fixed_rows_fixes_those_of_the_encoder(files: Path) -> None:
    encoder, decoder = vectors_encoder(files), head(files, rows=2)
    done = stitch_onnx(encoder, a_map(), decoder, files / "out.onnx")
    assert [done[side][0]["shape"] for side in ("inputs", "outputs")] == [[2, 5], [2, C]]
    x = numbers(9, 2, 5)
    assert_close(run(files / "out.onnx", x=x)[0], run(decoder, vectors=a_map()(run(encoder, x=x)[0]))[0])


def test_agreement_is_of_every_number() -> None:
    good, inf = np.array([1.0, 200.0], np.float32), np.inf
    assert require_agreement([good + 1e-3], [good], True, "it") == pytest.approx(1e-3 / 200, rel=0.1)
    assert require_agreement([np.array([1.0, -inf])], [np.array([1.0, -inf])], True, "it") == 0
    for came in ([1.0, np.nan], [1.0, inf], [1.1, 200.0]):
        with pytest.raises(RefusedError, match="differs"):
            require_agreement([np.array([0.0]), np.array(came, np.float32)], [np.array([0.0]), good], True, "it")


def test_small_outputs_are_compared_with_themselves() -> None:
    small = np.array([[1e-4, -5e-5]], np.float32)
    assert require_agreement([small * (1 + 1e-5)], [small], True, "it") == pytest.approx(1e-5, rel=0.1)
    with pytest.raises(RefusedError, match="differs from its parts by"):
        require_agreement([small * 1.01], [small], True, "it")
    with pytest.raises(RefusedError, match="differs from its parts by"):
        require_agreement([small * np.float32(1.01e-20)], [small * np.float32(1e-20)], True, "it")
    steps = np.array([1e-6, 2e-6], np.float16)  # of 6e-8: 6 % of the first
    assert require_agreement([np.nextafter(steps, np.float16(1))], [steps], False, "it") < 2e-3
    zeros = np.zeros((2, 3), np.float32)
    assert require_agreement([zeros], [zeros], True, "it") == 0
    for dtype in (np.float16, np.float32, np.float64):
        with pytest.raises(RefusedError, match="only zeros"):
            require_agreement([zeros.astype(dtype) + dtype(1e-7)], [zeros.astype(dtype)], False, "it")


@pytest.mark.parametrize(("first", "second"), [(11, 17), (17, 13), (18, 14), (9, 9)])
def test_opsets_are_brought_together(files: Path, first: int, second: int) -> None:
    encoder, decoder = vectors_encoder(files, opset=first), head(files, opset=second)
    done = stitch_onnx(encoder, a_map(), decoder, files / "out.onnx")
    assert done["opset"] == max(first, second, 13)
    x = numbers(9, 4, 5)
    assert_close(run(files / "out.onnx", x=x)[0], run(decoder, vectors=a_map()(run(encoder, x=x)[0]))[0])


@pytest.mark.parametrize("half", [(True, False), (False, True), (True, True)])
def test_half_precision_parts_are_met_by_casts(files: Path, half: tuple[bool, bool]) -> None:
    encoder, decoder = vectors_encoder(files, half=half[0]), head(files, half=half[1])
    done = stitch_onnx(encoder, a_map(), decoder, files / "out.onnx")
    kinds = ["float16" if h else "float32" for h in half]
    assert [done["inputs"][0]["type"], done["outputs"][0]["type"]] == kinds
    x = numbers(9, 4, 5).astype(kinds[0])
    mapped = a_map()(run(encoder, x=x)[0].astype(np.float32)).astype(kinds[1])
    assert_close(run(files / "out.onnx", x=x)[0], run(decoder, vectors=mapped)[0], 2e-2)


def test_unit_rows_are_made_where_the_fit_had_them(files: Path) -> None:
    one = Alignment.one_sided(a_map())
    alignment = Alignment(one.maps, one.back, {"source": Space(P, True), "target": Space(Q, True)})
    encoder, decoder, x = vectors_encoder(files), head(files), numbers(9, 4, 5)
    stitch_onnx(encoder, alignment, decoder, files / "out.onnx")
    vectors = run(encoder, x=x)[0]
    mapped = a_map()(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    assert_close(run(files / "out.onnx", x=x)[0], run(decoder, vectors=mapped)[0])


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_tokens_are_pooled(files: Path, pool: Any) -> None:
    encoder, decoder = tokens_encoder(files), head(files)
    done = stitch_onnx(encoder, a_map(), decoder, files / "out.onnx", pool=pool)
    ids = np.random.default_rng(0).integers(0, 100, (3, 7))
    mask = (np.arange(7) < np.array([[7], [4], [1]])).astype(np.int64)
    tokens = run(encoder, input_ids=ids, attention_mask=mask)[0]
    rows = tokens[:, 0] if pool == "first" else (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    rows = rows.astype(np.float32)
    feeds = {"input_ids": ids, "attention_mask": mask} if pool == "mean" else {"input_ids": ids}
    assert_close(run(files / "out.onnx", **feeds)[0], run(decoder, vectors=a_map()(rows))[0])
    assert len(done["inputs"]) == len(feeds)  # an input that nothing depends on is asked of nobody
    assert "count" not in {name for each in onnx.load(str(files / "out.onnx")).graph.node for name in each.output}


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_a_small_vocabulary_needs_no_probe(files: Path, pool: Any) -> None:
    encoder = onnx.load(str(tokens_encoder(files)))
    table = next(w for w in encoder.graph.initializer if numpy_helper.to_array(w).shape[0] == 100)
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:5].copy(), table.name))
    onnx.save(encoder, str(files / "small.onnx"))
    assert stitch_onnx(files / "small.onnx", a_map(), head(files), files / "out.onnx", pool=pool)["probe_rows"] == 4


def test_a_stitched_model_can_be_stitched_again(files: Path) -> None:
    encoder, decoder = vectors_encoder(files), head(files)
    stitch_onnx(encoder, a_map(), decoder, files / "one.onnx")
    decoder = head(files, q=5)
    stitch_onnx(files / "one.onnx", a_map(C, 5), decoder, files / "two.onnx")
    x = numbers(9, 4, 5)
    mapped = a_map(C, 5)(run(files / "one.onnx", x=x)[0])
    assert_close(run(files / "two.onnx", x=x)[0], run(decoder, vectors=mapped)[0])


def test_a_classifier_of_scikit_learn_is_stitched(files: Path) -> None:
    encoder, decoder, x = vectors_encoder(files), classifier_head(files), numbers(9, 20, 5)
    stitch_onnx(encoder, a_map(), decoder, files / "out.onnx")
    expected = run(decoder, vectors=a_map()(run(encoder, x=x)[0]))
    came = run(files / "out.onnx", x=x)
    assert np.array_equal(came[0], expected[0])
    assert_close(came[1], expected[1])


def test_labels_that_are_words_are_called_so(files: Path) -> None:
    model = onnx.load(str(classifier_head(files)))
    (made,) = model.graph.node
    kept = [each for each in made.attribute if each.name != "classlabels_ints"]
    del made.attribute[:]
    made.attribute.extend([*kept, onnx.helper.make_attribute("classlabels_strings", ["a", "b", "c"])])
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    onnx.save(model, str(files / "words.onnx"))
    done = stitch_onnx(vectors_encoder(files), a_map(), files / "words.onnx", files / "out.onnx")
    assert [each["type"] for each in done["outputs"]] == ["string", "float32"]


@pytest.mark.parametrize(
    ("make", "options", "error", "words"),
    [
        (lambda f: (vectors_encoder(f, p=5), head(f)), {}, RefusedError, "the map takes 6 dims"),
        (lambda f: (vectors_encoder(f, p=5, width="d"), head(f)), {}, RefusedError, r"\(3, 5\) on a probe"),
        (lambda f: (vectors_encoder(f), head(f, q=5)), {}, RefusedError, "the map gives 4 dims"),
        (lambda f: (vectors_encoder(f, p=Q), head(f, q=P)), {}, RefusedError, "wrong way round"),
        (lambda f: (tokens_encoder(f), head(f)), {}, RefusedError, "--pool mean"),
        (lambda f: (vectors_encoder(f), head(f)), {"pool": "mean"}, RefusedError, "--pool needs a sequence"),
        (lambda f: (tokens_encoder(f), head(f)), {"pool": "mean", "mask": "no"}, UsageError, "there is no 'no'"),
        (lambda f: (vectors_encoder(f), head(f)), {"output": "no"}, UsageError, "there is no 'no'"),
        (lambda f: (tokens_encoder(f), head(f)), {"output": "count"}, UsageError, "holds int64"),
        (lambda f: (head(f), tokens_encoder(f)), {}, SutureError, "inputs: expected one of float16, float32"),
        (lambda f: (f / "none.onnx", head(f)), {}, SutureError, "no such file"),
        (
            lambda f: (vectors_encoder(f), head(f)),
            {"probe": {"x": numbers(1, 2, 3)}},
            SutureError,
            "Got: 3 Expected: 5",
        ),
        (
            lambda f: (vectors_encoder(f), head(f)),
            {"probe": {"y": numbers(1, 2, 5)}},
            UsageError,
            "none for x; it has y",
        ),
        (lambda f: (vectors_encoder(f), head(f)), {"probe": {"x": numbers(1, 0, 5)}}, RefusedError, "no rows"),
        (
            lambda f: (vectors_encoder(f), head(f)),
            {"probe": {"x": numbers(1, 2, 5) * np.nan}},
            RefusedError,
            "give NaN",
        ),
        (
            lambda f: (tokens_encoder(f), head(f)),
            {"pool": "mean", "probe": {"input_ids": np.ones((3, 5), int), "attention_mask": np.ones((1, 5), int)}},
            *(RefusedError, r"mask of shape \(3, 5\), got \(1, 5\)"),
        ),
        (lambda f: (vectors_encoder(f, rows=3), head(f, rows=1)), {}, RefusedError, "gives 3 rows at a time"),
    ],
)
def test_parts_that_do_not_fit_leave_nothing(
    files: Path, make: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    encoder, decoder = make(files)
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    with pytest.raises(error, match=words):
        stitch_onnx(encoder, a_map(), decoder, files / "out.onnx", **options)
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before


def test_a_file_that_is_no_model_is_named(files: Path) -> None:
    for data in (b"", b"nonsense", vectors_encoder(files).read_bytes()[:-30]):
        (files / "bad.onnx").write_bytes(data)
        with pytest.raises(SutureError, match=r"bad\.onnx"):
            read_model(files / "bad.onnx")


def test_an_existing_model_is_not_replaced(files: Path) -> None:
    decoder = head(files)
    stitch_onnx(vectors_encoder(files), a_map(), decoder, files / "out.onnx")
    with pytest.raises(RefusedError, match="exists"):
        stitch_onnx(vectors_encoder(files), a_map(), decoder, files / "out.onnx")


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", ["Gemm", "Gemm alpha", "Gemm no bias", "MatMul", "MatMul Add", "doubled", "two"])
def test_a_map_is_folded_into_a_head(files: Path, kind: str, half: bool) -> None:
    path = head(files, kind, half=half)
    write_model(fold_onnx(read_model(path), a_map())[0], files / "out.onnx")
    x = numbers(9, 8, P).astype(np.float16 if half else np.float32)
    mapped = a_map()(x.astype(np.float32)).astype(x.dtype)
    assert_close(run(files / "out.onnx", vectors=x)[0], run(path, vectors=mapped)[0], 5e-2 if half else 1e-4)
    before, after = (sum(np.prod(w.dims) for w in read_model(p).graph.initializer) for p in (path, files / "out.onnx"))
    wider = 2 if kind == "two" else 1
    assert after - before == wider * (P - Q) * C + (0 if kind in ("Gemm", "Gemm alpha", "MatMul Add") else C)
    # and once more: what was folded is a head like any other
    write_model(fold_onnx(read_model(files / "out.onnx"), a_map(5, P, 1))[0], files / "twice.onnx")
    again = numbers(9, 8, 5).astype(x.dtype)
    mapped = a_map(5, P, 1)(again.astype(np.float32)).astype(x.dtype)
    assert_close(
        run(files / "twice.onnx", vectors=again)[0], run(files / "out.onnx", vectors=mapped)[0], 0.2 if half else 1e-4
    )


def test_convolutions_and_classifiers_are_folded(files: Path) -> None:
    for size in (1, 3):
        path = conv_head(files, size)
        write_model(fold_onnx(read_model(path), a_map())[0], files / "out.onnx", overwrite=True)
        x = numbers(9, 2, P, 5, 6)
        mapped = np.moveaxis(a_map()(np.moveaxis(x, 1, -1)), -1, 1)
        assert_close(run(files / "out.onnx", features=x)[0], run(path, features=mapped)[0], 1e-4)
    for classes in (C, 2):
        path = classifier_head(files, classes=classes)
        write_model(fold_onnx(read_model(path), a_map())[0], files / "out.onnx", overwrite=True)
        x = numbers(9, 30, P)
        expected, came = run(path, vectors=a_map()(x)), run(files / "out.onnx", vectors=x)
        assert np.array_equal(came[0], expected[0])
        assert_close(came[1], expected[1])


def nothing(folder: Path) -> Path:
    ports = [port("x", 1, "n", Q)], [port("y", 1, "n", Q)]
    return build(folder / "nothing.onnx", [node("Identity", ["x"], "y")], *ports, {})


SIMILARITIES = ["cosine", "euclidean", "l1", "linf", "angular", "geodesic", "whitened", "basis"]


@pytest.mark.parametrize(
    ("make", "mapping", "words"),
    [
        (lambda f: head(f, "Relu"), a_map(), "goes to Relu"),
        (lambda f: conv_head(f, 3, pads=1), a_map(), "without padding"),
        (head, a_map(Q, P), "right way round"),
        (classifier_head, a_map(P, 5), "right way round"),
        (lambda f: classifier_head(f, q=2 * Q, classes=2), a_map(), "right way round"),
        (lambda f: classifier_head(f, q=2 * Q, classes=2, width="d"), a_map(), "right way round"),
        (lambda f: classifier_head(f, q=2 * Q, classes=3, width="d"), a_map(), "24 coefficients for 3 outputs"),
        (lambda f: head(f, "Gemm rows", rows=2), a_map(), "differ from row to row"),
        (lambda f: head(f, "Gemm square", rows=C), a_map(), "differ from row to row"),
        (head, a_map() >> Normalize(Q), "only an affine map"),
        (
            lambda f: build(
                f / "i.onnx", [node("Identity", ["x"], "y")], [port("x", 1, "n", Q)], [port("y", 1, "n", Q)], {}
            ),
            a_map(),
            "straight to an output",
        ),
    ],
)
def test_heads_that_cannot_be_folded(files: Path, make: Any, mapping: Any, words: str) -> None:
    with pytest.raises(SutureError, match=words):
        fold_onnx(read_model(make(files)), mapping)


def test_numbers_too_large_for_half_precision_are_told(files: Path) -> None:
    large = Affine(40_000 * torch.ones(P, Q), torch.zeros(Q))
    with pytest.raises(RefusedError, match="too large for float16"):
        fold_onnx(read_model(head(files, half=True)), large)
    with pytest.raises(RefusedError, match="too large for float16"):
        Head(torch.ones(C, Q).half(), torch.zeros(C).half()).fold(large)


def world(rows: int = 300) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, P)).astype(np.float32)
    return x, np.tanh(x @ rng.normal(size=(P, Q))).astype(np.float32)


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
@pytest.mark.parametrize("name", ["ridge", "landmark", "local", "mlp", "distill-mlp", "relative", "relative-product"])
def test_every_kind_of_map_is_exported(files: Path, name: str, suffix: str) -> None:
    alignment = ALIGNERS[name]().fit(*world())
    path = files / f"map.{suffix}"
    done = export(alignment, path, into="shared" if name.startswith("relative") else "target")
    assert done["difference"] < 1e-4
    x = world()[0][:5]
    expected = model_map(alignment, into="shared" if name.startswith("relative") else "target")(x)
    if suffix == "onnx":
        (came,) = run(path, vectors=x)
    else:
        came = torch.export.load(path).module()(torch.from_numpy(x)).detach().numpy()
    assert_close(came, expected, 2e-4)


@pytest.mark.parametrize(
    "similarity", ["cosine", "euclidean", "l1", "linf", "angular", "geodesic", "whitened", "basis"]
)
@pytest.mark.parametrize("quantised", ["none", "coordinates", "similarities", "smooth"])
def test_every_similarity_is_written_as_onnx(files: Path, similarity: Any, quantised: Any) -> None:
    anchors = 6 if similarity == "basis" else 9
    aligner = RelativeRepresentation(anchors, similarity, quantised=quantised, step=0.25, unit=True, neighbours=20)
    mapping = aligner.fit(*world(60)).map_of("source")
    write_model(map_model(mapping), files / "map.onnx")
    x = world()[0][:40]
    came, expected = run(files / "map.onnx", vectors=x)[0], mapping(x)
    # Where numbers are rounded to steps, one in a while falls on the other side.
    allowed = 0 if quantised in ("none", "smooth") else 4
    assert (np.abs(came - expected).max(1) > 2e-4).sum() <= allowed


def test_arrays_need_nothing_but_numpy(files: Path) -> None:
    one = Alignment.one_sided(a_map())
    for unit_in, unit_out in ((False, False), (True, False), (False, True), (True, True)):
        alignment = Alignment(one.maps, one.back, {"source": Space(P, unit_in), "target": Space(Q, unit_out)})
        export(alignment, files / "map.npz", overwrite=True)
        x = numbers(9, 4, P)
        with np.load(files / "map.npz", allow_pickle=False) as m:
            y = x / np.linalg.norm(x, axis=1, keepdims=True) if m["unit_in"] else x
            y = y @ m["weight"] + m["bias"]
            y = y / np.linalg.norm(y, axis=1, keepdims=True) if m["unit_out"] else y
        assert_close(y, model_map(alignment)(x))


def test_what_cannot_be_exported(files: Path) -> None:
    with pytest.raises(RefusedError, match="holds an affine map"):
        export(ALIGNERS["mlp"](steps=1).fit(*world()), files / "map.npz")
    with pytest.raises(UsageError, match=r"\.onnx, \.pt2, \.npz"):
        export(a_map(), files / "map.bin")
    with pytest.raises(RefusedError, match="no exact inverse"):
        export(Alignment.one_sided(a_map()), files / "map.onnx", side="target", into="source")
    assert not list(files.iterdir())
