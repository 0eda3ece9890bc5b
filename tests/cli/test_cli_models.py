"""`stitch`, `fold`, `export` and `evaluate-head`: files in, files out, numbers against independent ones."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from suture.aligners import load
from suture.stitching.models import Head, save_head, stitch

Run = Callable[..., Any]


def labels_of(world: Path, part: str) -> Any:
    """Three classes by what encoder b sees, so that a head on b can learn them."""
    rows = np.load(world / f"{part}.b.npy")
    directions = np.linalg.svd(np.load(world / "fit.b.npy"), full_matrices=False)[2][:3]
    return (rows @ directions.T).argmax(1)


@pytest.fixture(scope="session")
def model(world: Path) -> LogisticRegression:
    return LogisticRegression(C=100, max_iter=3000).fit(np.load(world / "fit.b.npy"), labels_of(world, "fit"))


@pytest.fixture(scope="session")
def head(world: Path, model: LogisticRegression) -> Path:
    save_head(Head.of(model), world / "head.safetensors")
    return world / "head.safetensors"


@pytest.fixture(scope="session")
def labels(world: Path) -> Path:
    np.save(world / "labels.npy", labels_of(world, "gallery"))
    return world / "labels.npy"


def linear_onnx(path: Path, weight: Any, bias: Any, inside: str, outside: str) -> Path:
    """``outside = inside @ weight.T + bias``."""
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in ((inside, weight.shape[1]), (outside, len(weight)))
    ]
    arrays = {"w": weight.astype(np.float32), "b": bias.astype(np.float32)}
    graph = helper.make_graph(
        [helper.make_node("Gemm", [inside, "w", "b"], [outside], transB=1)],
        "linear",
        ports[:1],
        ports[1:],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), str(path))
    return path


def test_fold_a_head_file(suture: Run, world: Path, ab: Path, head: Path, here: Path) -> None:
    done = suture("fold", ab, head, "-o", "new.safetensors", "--json").json
    old, new = load_file(head), load_file(here / "new.safetensors")
    assert set(new) == set(old) == {"weight", "bias"}
    assert 0 < done["difference"] < 1e-5
    assert (done["head_dim"], done["folded_dim"], done["target_had_unit_rows"]) == (32, 24, True)
    rows = np.load(world / "gallery.a.npy")
    expected = load(ab).translate()(rows) @ old["weight"].T + old["bias"]
    np.testing.assert_allclose(rows @ new["weight"].T + new["bias"], expected, atol=1e-5)


def test_half_precision_is_not_called_exact(suture: Run, ab: Path, head: Path, here: Path) -> None:
    save_file({name: values.astype(np.float16) for name, values in load_file(head).items()}, here / "half.safetensors")
    told = suture("fold", ab, "half.safetensors", "-o", "new.safetensors").out
    assert "(half precision)" in told
    assert "1e-5" not in told


def program(path: Path, module: torch.nn.Module, width: int) -> Path:
    """A torch program of any number of rows."""
    rows = torch.export.Dim("rows", min=2, max=64)
    exported = torch.export.export(module.eval(), (torch.zeros(3, width),), dynamic_shapes=({0: rows},))
    torch.export.save(exported, path)
    return path


def test_stitch_torch_programs(suture: Run, fails: Run, ab: Path, here: Path) -> None:
    torch.manual_seed(0)
    encoder, decoder = torch.nn.Linear(10, 24), torch.nn.Linear(32, 3)
    first, last = program(here / "encoder.pt2", encoder, 10), program(here / "decoder.pt2", decoder, 32)
    suture("stitch", first, ab, last, "-o", "whole.pt2", "--json")
    x = torch.randn(7, 10)
    whole = torch.export.load(here / "whole.pt2").module()
    torch.testing.assert_close(whole(x), stitch(encoder, load(ab), decoder)(x))
    linear_onnx(here / "decoder.onnx", np.ones((3, 32)), np.zeros(3), "rows", "scores")
    assert "of one kind" in fails(2, "stitch", first, ab, "decoder.onnx", "-o", "mixed.pt2")
    assert "the map takes 24 dims" in fails(3, "stitch", last, ab, first, "-o", "turned.pt2")


def test_fold_and_stitch_onnx(suture: Run, world: Path, ab: Path, model: Any, here: Path) -> None:
    decoder = linear_onnx(here / "head.onnx", model.coef_, model.intercept_, "vectors", "scores")
    encoder = linear_onnx(here / "encoder.onnx", np.eye(24), np.zeros(24), "rows", "embedding")
    assert "equal on a probe" in suture("fold", ab, decoder, "-o", "folded.onnx").out
    done = suture("stitch", encoder, ab, decoder, "-o", "whole.onnx", "--json").json
    assert done["inputs"] == [{"name": "rows", "type": "float32", "shape": [None, 24]}]
    assert done["difference"] < 1e-5
    assert "-> whole.onnx" in suture("stitch", encoder, ab, decoder, "-o", "whole.onnx", "--overwrite").out
    import onnxruntime

    rows = np.load(world / "gallery.a.npy")
    mapped = load(ab).translate()(rows)
    for path, name, expected in (
        ("folded.onnx", "vectors", mapped),
        ("whole.onnx", "rows", mapped / np.linalg.norm(mapped, axis=1, keepdims=True)),
    ):
        (scores,) = onnxruntime.InferenceSession(path).run(None, {name: rows})
        np.testing.assert_allclose(scores, model.decision_function(expected), atol=1e-4)


@pytest.mark.parametrize("suffix", ["onnx", "pt2", "npz"])
def test_export(suture: Run, ab: Path, here: Path, suffix: str) -> None:
    done = suture("export", ab, "-o", f"map.{suffix}", "--json").json
    assert (done["source_dim"], done["target_dim"]) == (24, 32)
    assert done["difference"] < 1e-5
    assert (here / f"map.{suffix}").stat().st_size > 24 * 32 * 4


@pytest.mark.parametrize("suffix", ["onnx", "pt2", "npz"])
def test_export_goes_into_the_other_side(
    suture: Run, fails: Run, world: Path, ac: Path, here: Path, suffix: str
) -> None:
    suture("export", ac, "--side", "target", "-o", f"back.{suffix}", "--normalize", "none")
    rows = np.load(world / "gallery.c.npy")[:20].astype(np.float32)
    expected = load(ac).translate("target", "source")(rows)
    if suffix == "npz":
        with np.load("back.npz") as found:
            came = rows @ found["weight"] + found["bias"]
    elif suffix == "pt2":
        came = torch.export.load(here / "back.pt2").module()(torch.from_numpy(rows)).numpy()
    else:
        import onnxruntime

        (came,) = onnxruntime.InferenceSession("back.onnx").run(None, {"vectors": rows})
    np.testing.assert_allclose(came, expected, atol=1e-4)
    assert np.abs(came - rows).max() > 0.1
    for same in ("source", "target"):
        words = ("export", ac, "--side", same, "--into", same, "-o", f"same.{suffix}")
        assert "the space of the rows themselves" in fails(2, *words)


def test_evaluate_head_counts_as_scikit_learn_does(
    suture: Run, world: Path, ab: Path, head: Path, labels: Path, model: Any
) -> None:
    words = ("evaluate-head", ab, head, world / "gallery.a.npy", "--labels", labels)
    done = suture(*words, "--native", world / "gallery.b.npy", "--json").json
    by_name = {each["name"]: each for each in done["strategies"]}
    truth = np.load(labels)
    mapped = load(ab).translate()(np.load(world / "gallery.a.npy"))
    unit = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
    choices = {
        "native": model.predict(np.load(world / "gallery.b.npy")),
        "stitched": model.predict(unit),
        "folded": model.predict(mapped),
        "majority": np.full_like(truth, np.bincount(truth).argmax()),
    }
    for name, chosen in choices.items():
        metrics = by_name[name]["metrics"]
        assert metrics["accuracy"]["estimate"] == pytest.approx(accuracy_score(truth, chosen))
        assert metrics["macro_f1"]["estimate"] == pytest.approx(f1_score(truth, chosen, average="macro"))
        for value in metrics.values():
            assert value["low"] <= value["estimate"] <= value["high"]
    # the width of the interval of a share, by its closed form
    accuracy = by_name["native"]["metrics"]["accuracy"]
    share = accuracy["estimate"]
    assert accuracy["high"] - accuracy["low"] == pytest.approx(2 * 1.96 * (share * (1 - share) / 500) ** 0.5, rel=0.15)
    assert by_name["stitched"]["metrics"]["accuracy"]["estimate"] > 0.6
    assert by_name["stitched"]["difference"]["share_of_native"]["high"] <= 1.05
    assert (by_name["relative"]["metrics"], by_name["absolute"]["metrics"]) == (None, None)
    assert "24 and 32 dims" in by_name["absolute"]["reason"]
    assert "--relative-head" in by_name["relative"]["reason"]
    assert suture(*words, "--native", world / "gallery.b.npy", "--json").json == done
    text = suture(*words).out
    assert "native needs the same rows by the target's encoder (--native)" in text


def test_heads_that_are_onnx_models_are_judged(
    suture: Run, fails: Run, world: Path, ab: Path, head: Path, labels: Path, model: Any, here: Path
) -> None:
    words = (world / "gallery.a.npy", "--native", world / "gallery.b.npy", "--labels", labels, "--json")
    plain = suture("evaluate-head", ab, head, *words).json
    path = linear_onnx(here / "head.onnx", model.coef_, model.intercept_, "rows", "scores")
    assert suture("evaluate-head", ab, path, *words).json | {"head": str(head)} == plain
    # an output of labels must say what the scores say
    whole = onnx.load(path)
    whole.graph.node.append(helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
    whole.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
    onnx.save(whole, path)
    assert suture("evaluate-head", ab, path, *words).json | {"head": str(head)} == plain
    whole.metadata_props.add(key="classes", value="[2, 1, 0]")
    onnx.save(whole, path)
    assert "its output of labels says" in fails(1, "evaluate-head", ab, path, *words[:-1])
    linear_onnx(path, model.coef_[:1], model.intercept_[:1], "rows", "scores")
    assert "at least two classes" in fails(1, "evaluate-head", ab, path, *words[:-1])
    whole.graph.output.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 32]))
    onnx.save(whole, path)
    assert "expected one output of floating-point scores" in fails(1, "evaluate-head", ab, path, *words[:-1])
    del whole.graph.output[1:]
    whole.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(whole, path)
    assert "expected one input of floating-point rows (?, q), got rows float32 (4, 32)" in fails(
        1, "evaluate-head", ab, path, *words[:-1]
    )


def test_what_should_give_pause_is_said(
    suture: Run, world: Path, ab: Path, ac: Path, head: Path, labels: Path, model: Any, here: Path
) -> None:
    native = np.load(world / "gallery.b.npy")
    np.save("wrong.npy", (model.predict(native) + 1) % 3)  # what the head never says
    words = ("evaluate-head", ab, head, world / "gallery.a.npy", "--native", world / "gallery.b.npy", "--labels")
    done = suture(*words, "wrong.npy", "--json").json
    by_name = {each["name"]: each for each in done["strategies"]}
    assert by_name["native"]["metrics"]["accuracy"]["estimate"] == 0
    assert by_name["stitched"]["difference"]["share_of_native"] is None
    assert "Native itself (0.000) is below the most frequent label" in done["conclusion"]
    assert "Native itself" not in suture(*words, labels, "--json").json["conclusion"]
    # a head of the new encoder's own rows
    rows = np.load(world / "gallery.a.npy")
    save_head(Head.of(torch.eye(24)[:3].clone()), "own.safetensors")
    np.save("own.npy", rows[:, :3].argmax(1))
    said = suture("evaluate-head", ac, "own.safetensors", world / "gallery.a.npy", "--labels", "own.npy").out
    assert "Without the map the rows do better (absolute 1.000)" in " ".join(said.split())


def test_a_map_is_chosen_by_the_head(suture: Run, world: Path, head: Path, here: Path) -> None:
    words = ("fit", world / "fit.a.npy", world / "fit.b.npy", "-o", "by_head.safetensors", "--head", head)
    done = suture(*words, "--json").json
    text = suture(*words, "--overwrite").out
    assert "R@1" not in text  # nobody asked for mates
    methods = [each["method"] for each in done["candidates"]]
    table = text.split("difference to the best")[1].split("held out")[0].splitlines()
    assert [line.split()[0] for line in table if line.split()] == list(dict.fromkeys(methods))  # one line each
    assert len(set(methods)) < len(methods)
    assert done["judged_by"] == "head_match"
    matches = [each["head_match"]["estimate"] for each in done["candidates"]]
    assert matches == sorted(matches, reverse=True)
    assert matches[0] < 0
    assert done["candidates"][0]["method"] == done["method"]
    assert "the head takes 32 dims" in suture(*words[:1], *words[2:0:-1], "-o", "x.safetensors", *words[5:], code=3).err


def test_labels_and_native_rows_are_found_by_id(
    suture: Run, world: Path, ab: Path, head: Path, labels: Path, here: Path
) -> None:
    order = np.random.default_rng(0).permutation(500)
    np.save("shuffled.npy", np.load(world / "gallery.b.npy")[order])
    ids = np.load(world / "gids.npy")
    np.save("ids.npy", ids[order])
    table = "".join(f"{i},{label}\n" for i, label in zip(ids[order], np.load(labels)[order], strict=True))
    (here / "labels.csv").write_text("id,label\n" + table)
    words = ("evaluate-head", ab, head, world / "gallery.a.npy")
    given = ("--ids", world / "gids.npy", "--ids", "ids.npy")
    by_id = suture(*words, "--labels", "labels.csv", "--native", "shuffled.npy", *given, "--json").json
    by_row = suture(*words, "--labels", labels, "--native", world / "gallery.b.npy", "--json").json
    assert by_id == by_row


def test_names_of_classes(suture: Run, world: Path, ab: Path, head: Path, labels: Path, here: Path) -> None:
    names = np.array(["red", "green", "blue"])
    save_file(load_file(head), "named.safetensors", {"classes": json.dumps(names.tolist())})
    (here / "labels.txt").write_text("\n".join(names[np.load(labels)]) + "\n")
    words = (world / "gallery.a.npy", "--json", "--labels")
    named = suture("evaluate-head", ab, "named.safetensors", *words, "labels.txt").json
    plain = suture("evaluate-head", ab, head, *words, labels).json
    assert named["strategies"] == plain["strategies"]


def test_relative_and_absolute_heads(suture: Run, world: Path, here: Path, labels: Path) -> None:
    suture("fit", world / "fit.a.npy", world / "fit.b.npy", "-o", "rel.safetensors", "--method", "relative")
    relative = load("rel.safetensors")
    rows, classes = np.load(world / "fit.b.npy"), labels_of(world, "fit")
    plain = LogisticRegression(C=100, max_iter=3000).fit(rows, classes)
    on_relative = LogisticRegression(C=100, max_iter=3000).fit(relative.map_of("target")(rows), classes)
    save_head(Head.of(plain), "head.safetensors")
    save_head(Head.of(on_relative), "relative_head.safetensors")
    words = ("evaluate-head", "rel.safetensors", "head.safetensors", world / "gallery.a.npy", "--labels", labels)
    done = suture(*words, "--relative-head", "relative_head.safetensors", "--json").json
    found = {each["name"]: each for each in done["strategies"]}
    chosen = on_relative.predict(relative.map_of("source")(np.load(world / "gallery.a.npy")))
    accuracy = found["relative"]["metrics"]["accuracy"]["estimate"]
    assert accuracy == pytest.approx(accuracy_score(np.load(labels), chosen))
    assert accuracy > 0.5
    # another map stands for the absolute head, this one for the relative head
    suture("fit", world / "fit.a.npy", world / "fit.b.npy", "-o", "ridge.safetensors", "--method", "ridge")
    words = ("evaluate-head", "ridge.safetensors", *words[2:], "--relative-map", "rel.safetensors")
    again = suture(*words, "--relative-head", "relative_head.safetensors", "--json").json
    again = {each["name"]: each for each in again["strategies"]}["relative"]["metrics"]
    assert again["accuracy"]["estimate"] == accuracy
    # a width that agrees is not enough: the shared space of this map is the target's own
    words = ("evaluate-head", "ridge.safetensors", *words[2:6], "--relative-head", "head.safetensors")
    assert "--relative-map" in suture(*words, code=3).err


def test_rows_as_they_are_where_widths_agree(suture: Run, world: Path, ac: Path, labels: Path, here: Path) -> None:
    save_head(Head.of(torch.eye(24)[:3].clone()), "head.safetensors")
    words = ("evaluate-head", ac, "head.safetensors", world / "gallery.a.npy", "--labels", labels, "--json")
    found = {each["name"]: each for each in suture(*words).json["strategies"]}
    expected = accuracy_score(np.load(labels), np.load(world / "gallery.a.npy")[:, :3].argmax(1))
    assert found["absolute"]["metrics"]["accuracy"]["estimate"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (3, ("fold", "AB", "wide.safetensors", "-o", "x.safetensors"), "right way round"),
        (1, ("fold", "AB", "AB", "-o", "x.safetensors"), "this is a suture map"),
        (1, ("fold", "AB", "nothing.safetensors", "-o", "x.safetensors"), "no such file"),
        (1, ("fold", "AB", "broken.safetensors", "-o", "x.safetensors"), "cannot be read"),
        (1, ("fold", "AB", "odd.safetensors", "-o", "x.safetensors"), "one linear layer"),
        (2, ("fold", "AB", "HEAD", "-o", "x.onnx"), ".safetensors"),
        (3, ("fold", "AB", "HEAD", "-o", "HEAD"), "never overwritten"),
        (2, ("export", "AB", "-o", "x.txt"), ".onnx, .pt2, .npz"),
        (3, ("export", "AB", "-o", "x.npz", "--side", "target", "--into", "source"), "inverse"),
        (2, ("export", "AB", "-o", "x.npz", "--into", "nowhere"), "no space"),
        (2, ("stitch", "E", "AB", "D", "-o", "x.onnx", "--into", "source"), "expected target or shared, got 'source'"),
        *(
            (1, ("stitch", "E", "AB", "D", "-o", "x.onnx", "--probe", name), "expected an .npz file with one array")
            for name in ("few.npy", "cut.npz", "empty.npz", "strange.txt", "by_id.npz")
        ),
        (2, ("stitch", "E", "AB", "D", "-o", "x.onnx", "--probe", "other.npz"), "none for rows; it has y"),
        (2, ("stitch", "broken.onnx", "AB", "broken.onnx", "-o", "x.pt"), ".onnx"),
        (1, ("stitch", "broken.onnx", "AB", "broken.onnx", "-o", "x.onnx"), "broken.onnx"),
        (3, ("evaluate-head", "AB", "wide.safetensors", "A", "--labels", "LABELS"), "the head takes 9 dims"),
        (1, ("evaluate-head", "AB", "broken.onnx", "A", "--labels", "LABELS"), "expected an ONNX model"),
        (2, ("fit", "A", "B", "-o", "x.safetensors", "--head", "broken.onnx"), "got an ONNX model"),
        (3, ("evaluate-head", "AB", "HEAD", "A", "--labels", "LABELS", "--native", "F"), "or --id-column NAME)."),
        (3, ("evaluate-head", "AB", "HEAD", "B", "--labels", "LABELS"), "24 dims"),
        (3, ("evaluate-head", "AB", "HEAD", "A", "--labels", "few.npy"), "500 rows, got 3"),
        (
            3,
            ("evaluate-head", "AB", "HEAD", "A", "--labels", "strange.txt"),
            "strange.txt: the labels of 500 of 500 rows",
        ),
        (
            3,
            ("evaluate-head", "AB", "HEAD", "A", "--labels", "some.json"),
            "2 of 500 rows are none of the head's 3 class",
        ),
        (
            3,
            ("evaluate-head", "AB", "HEAD", "A", "--labels", "some.json"),
            "names: '', 'cat'; it knows '0', '1', '2'.",
        ),
        (1, ("evaluate-head", "AB", "HEAD", "A", "--labels", "float.npy"), "expected labels as a 1-D array"),
        (3, ("evaluate-head", "AB", "HEAD", "A", "--labels", "LABELS", "--native", "moved.npy"), "the same order"),
        (3, ("evaluate-head", "AB", "HEAD", "A", "--labels", "LABELS", "--native", "half.npy"), "of other items"),
        (
            2,
            ("evaluate-head", "AB", "HEAD", "A", "--labels", "LABELS", "--relative-map", "none"),
            "--relative-head FILE",
        ),
        (1, ("evaluate-head", "AB", "normed.safetensors", "A", "--labels", "LABELS"), "0.running_mean (32,)"),
        (3, ("evaluate-head", "AB", "HEAD", "A", "--labels", "by_id.csv"), "has no ids"),
        (3, ("evaluate-head", "AB", "HEAD", "A", "--labels", "LABELS", "--native", "A"), "24"),
        (3, ("evaluate-head", "AB", "HEAD", "A", "--labels", "LABELS", "--relative-head", "HEAD"), "--relative-map"),
    ],
)
def test_refusals(
    fails: Run, world: Path, ab: Path, head: Path, labels: Path, here: Path, code: int, words: Any, message: str
) -> None:
    save_head(Head.of(torch.ones(3, 9)), "wide.safetensors")
    save_file({"weights": np.ones((3, 32), np.float32)}, "odd.safetensors")
    (here / "broken.safetensors").write_bytes(b"nonsense")
    (here / "broken.onnx").write_bytes(b"nonsense")
    np.save("few.npy", np.arange(3))
    np.savez("other.npz", y=np.arange(3))
    (here / "cut.npz").write_bytes((here / "other.npz").read_bytes()[:100])
    (here / "empty.npz").write_bytes(b"")
    with zipfile.ZipFile("by_id.npz", "w") as archive:
        archive.writestr("rows", "1,2")
    (here / "strange.txt").write_text("cat\n" * 500)
    (here / "by_id.csv").write_text("id,label\n1,2\n")
    (here / "some.json").write_text(json.dumps(["", "cat", *map(str, np.load(labels)[2:].tolist())]))
    np.save("float.npy", np.load(labels).astype(float))
    np.save("moved.npy", np.roll(np.load(world / "gallery.b.npy"), 1, axis=0))
    rows = load(ab).translate()(np.load(world / "gallery.a.npy"))  # what this map tells pairs of well
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.save("half.npy", np.concatenate([rows[:250], rows[251:], rows[250:251]]))
    normed = nn.Sequential(nn.BatchNorm1d(32, affine=False), nn.Linear(32, 3)).state_dict()
    save_file({name: value.numpy() for name, value in normed.items()}, "normed.safetensors")
    paths = {"AB": ab, "HEAD": head, "LABELS": labels, "A": world / "gallery.a.npy", "B": world / "gallery.b.npy"}
    paths["F"] = world / "fit.b.npy"
    paths["E"] = linear_onnx(here / "e.onnx", np.ones((24, 5)), np.zeros(24), "rows", "vectors")
    paths["D"] = linear_onnx(here / "d.onnx", np.ones((3, 32)), np.zeros(3), "rows", "scores")
    assert message in fails(code, *(paths.get(word, word) for word in words))


def test_every_key_is_documented(
    suture: Run, world: Path, ab: Path, head: Path, labels: Path, model: Any, here: Path
) -> None:
    decoder = linear_onnx(here / "head.onnx", model.coef_, model.intercept_, "vectors", "scores")
    encoder = linear_onnx(here / "encoder.onnx", np.eye(24), np.zeros(24), "rows", "embedding")
    doc = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    for words in (
        ("stitch", encoder, ab, decoder, "-o", "whole.onnx"),
        ("fold", ab, head, "-o", "new.safetensors"),
        ("export", ab, "-o", "map.npz"),
        ("evaluate-head", ab, head, world / "gallery.a.npy", "--labels", labels),
    ):
        section = doc.split(f"## suture {words[0]}\n")[1].split("## ")[0]
        firsts = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
        keys = {word.strip(" `") for cell in firsts for word in cell.split(",")}
        assert set(suture(*words, "--json").json) == keys
