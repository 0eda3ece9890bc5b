"""The map file: what is saved comes back to the bit, and nothing else is ever mistaken for it.

The golden file is written once for each version of the format and never again:

    cd tests/core && python -c "import test_core_file as t; t.write_golden()"
"""

import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from core_examples import MAPS, make_alignment, rows
from safetensors.torch import save_file

from suture.aligners import Affine, Alignment, RefusedError, Space, SutureError, UsageError, load, save_alignment
from suture.aligners import file as map_file
from suture.aligners.file import is_map_file, to_bytes

GOLDEN = Path(__file__).parent / "golden"
PROBE = [[1.0, -2.0, 0.5, 3.0, 0.25], [0.0, 1.0, -1.0, 2.0, -0.125]]


def write_golden() -> None:
    name = GOLDEN / f"v{map_file.VERSION}"
    save_alignment(make_alignment(), name.with_suffix(".safetensors"))
    alignment, probe = load(name.with_suffix(".safetensors")), np.array(PROBE)
    expected = {
        "source to third": alignment.translate("source", "third")(probe).tolist(),
        "source to target": alignment.translate("source", "target")(probe).tolist(),
        "target into shared": alignment.map_of("target")(probe[:, :4]).tolist(),
    }
    name.with_suffix(".json").write_text(json.dumps(expected, indent=1) + "\n")


def same(a: Alignment, b: Alignment) -> None:
    """Equal in everything that an alignment holds."""
    assert (a.sides, set(a.back), set(a.spaces)) == (b.sides, set(b.back), set(b.spaces))
    assert a.provenance == b.provenance
    for mine, theirs in ((a.maps, b.maps), (a.back, b.back)):
        for name, m in mine.items():
            assert (m.kind, m.settings()) == (theirs[name].kind, theirs[name].settings())
            assert all(torch.equal(t, theirs[name].tensors()[key]) for key, t in m.tensors().items())
    for name, space in a.spaces.items():
        other = b.spaces[name]
        for key, value in vars(space).items():
            found = getattr(other, key)
            if isinstance(value, torch.Tensor):
                assert found.dtype == value.dtype
                assert torch.equal(value, found)
            else:
                assert type(found) is type(value)
                assert found == value


@pytest.fixture
def path(tmp_path):
    return tmp_path / "map.safetensors"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_an_alignment_comes_back_whole(path, dtype):
    alignment = make_alignment(dtype)
    save_alignment(alignment, path)
    again = load(path)
    assert list(again.sides) == sorted(alignment.sides)
    same(again, replace(alignment, maps=dict(sorted(alignment.maps.items()))))
    for x in (rows(50, 5, dtype=dtype), rows(50, 5, dtype=dtype).numpy()):
        assert np.array_equal(np.asarray(again.translate()(x)), np.asarray(alignment.translate()(x)))


@pytest.mark.parametrize("f", MAPS.values(), ids=MAPS)
def test_a_loaded_map_is_bit_equal(f, path):
    save_alignment(Alignment.one_sided(f), path)
    again = load(path).map_of("source")
    for n in (1, 7, 300):
        for dtype in (torch.float16, torch.float32, torch.float64):
            x = rows(n, 5, seed=n, dtype=dtype)
            assert torch.equal(again(x), f(x))


@pytest.mark.parametrize("dim", [17, 64, 130])
def test_tensors_of_any_layout_are_written_as_they_read(path, dim):
    big = rows(2 * dim, 2 * dim)
    views = {"transposed": big[:dim, :dim].T, "strided": big[::2, 1::2], "expanded": big[:dim, :1].expand(dim, dim)}
    for name, weight in views.items():
        bias = big[0, ::2]
        f = Affine(weight, bias)
        alignment = Alignment(
            {"source": f}, spaces={"source": Space(dim, False, mean=bias.float(), canaries=weight.float())}
        )
        save_alignment(alignment, path, overwrite=True)
        again, x = load(path), rows(40, dim, seed=3)
        assert torch.equal(again.maps["source"].weight, weight), name
        assert torch.equal(again.spaces["source"].canaries, weight.float()), name
        assert torch.equal(again.maps["source"](x), f(x)), name


def test_equal_alignments_are_equal_files():
    first = make_alignment()
    turned = replace(
        first,
        maps=dict(reversed(first.maps.items())),
        spaces={
            name: replace(s, canaries=None if s.canaries is None else s.canaries.T.contiguous().T)
            for name, s in reversed(first.spaces.items())
        },
        provenance={key: first.provenance[key] for key in reversed(first.provenance)},
    )
    assert to_bytes(turned) == to_bytes(first)
    assert to_bytes(make_alignment()) == to_bytes(first)
    assert to_bytes(first.with_provenance(a={1: 2, 10: 3})) == to_bytes(first.with_provenance(a={"10": 3, "1": 2}))
    assert to_bytes(first.with_provenance(rows=4)) != to_bytes(first)
    assert to_bytes(first.to(torch.float32)) != to_bytes(first)


def test_saving_what_was_loaded_gives_the_same_file(path):
    save_alignment(make_alignment(), path)
    assert to_bytes(load(path)) == path.read_bytes()


def test_nothing_is_overwritten_unasked(path):
    path.write_bytes(b"mine")
    with pytest.raises(RefusedError, match=r"map\.safetensors exists"):
        save_alignment(make_alignment(), path)
    assert path.read_bytes() == b"mine"
    save_alignment(make_alignment(), path, overwrite=True)
    assert path.read_bytes() == to_bytes(make_alignment())
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("old", [None, b"the old file"])
@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_leaves_nothing_behind_and_the_old_file_whole(path, old, broken, monkeypatch):
    if old is not None:
        path.write_bytes(old)

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(*((os, "fsync", fail) if broken == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="disk full"):
        save_alignment(make_alignment(), path, overwrite=True)
    assert list(path.parent.iterdir()) == ([path] if old is not None else [])
    assert old is None or path.read_bytes() == old


def test_provenance_is_plain_finite_json(path):
    for value in (float("nan"), float("inf"), {1, 2}, torch.ones(2), Path("x")):
        with pytest.raises(SutureError, match="plain finite JSON"):
            save_alignment(make_alignment().with_provenance(bad=value), path)
    assert not path.exists()


def header_of(data: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(data: bytes, sign: bool = True, **changes) -> bytes:
    """The same file with other facts in its header, and a digest that fits them if it is signed."""
    outer, body = header_of(data)
    header = {**json.loads(outer["__metadata__"][map_file.KEY]), **changes}
    if sign:
        header.pop("digest")
        names = [n for n in outer if n != "__metadata__"]
        kinds = {"F64": torch.float64, "F32": torch.float32, "I64": torch.int64}
        tensors = {}
        for n in names:
            start, stop = outer[n]["data_offsets"]
            flat = torch.frombuffer(bytearray(body[start:stop]), dtype=kinds[outer[n]["dtype"]])
            tensors[n] = flat.reshape(outer[n]["shape"])
        header["digest"] = map_file._digest(header, tensors)
    outer["__metadata__"][map_file.KEY] = json.dumps(header, sort_keys=True, separators=(",", ":"))
    text = json.dumps(outer).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def test_the_helper_of_these_tests_writes_a_readable_file(path):
    path.write_bytes(with_header(to_bytes(make_alignment()), suture="0.0.0"))
    same(load(path), replace(make_alignment(), maps=dict(sorted(make_alignment().maps.items()))))


def test_no_flipped_byte_goes_unseen(path):
    data = to_bytes(make_alignment())
    (length,) = struct.unpack("<Q", data[:8])
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:300].tolist()
    for i in {*range(8), *range(8 + length, len(data), 7), *chosen}:
        damaged = bytearray(data)
        damaged[i] ^= 1 << (i % 8)
        path.write_bytes(damaged)
        try:
            again = load(path)
        except SutureError as error:
            assert str(path) in str(error)  # noqa: PT017 (padding may be flipped without harm)
        else:
            assert to_bytes(again) == data, f"byte {i} of {len(data)}"


def test_no_truncated_file_is_read(path):
    data = to_bytes(make_alignment())
    for length in (*range(0, 16), 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(SutureError, match=r"map\.safetensors"):
            load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(SutureError, match=r"map\.safetensors"):
        load(path)


def test_other_files_are_refused_for_what_they_are(path):
    with pytest.raises(SutureError, match="no such file"):
        load(path)
    with pytest.raises(SutureError, match="no such file"):
        load(path.parent)
    for garbage in (b"", b"garbage", os.urandom(2000), b"\x80\x04pickle", np.ones(9).tobytes()):
        path.write_bytes(garbage)
        with pytest.raises(SutureError, match="expected a map file written by suture"):
            load(path)
        assert not is_map_file(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(SutureError, match="not a suture map"):
        load(path)
    assert not is_map_file(path)
    for text in ("{", "[1]", "3", "null", '{"format": "suture-alignment", "version": "one"}'):
        save_file({"weight": torch.ones(2)}, path, metadata={"suture": text})
        with pytest.raises(SutureError, match=r"map\.safetensors"):
            load(path)
    save_alignment(make_alignment(), path, overwrite=True)
    assert is_map_file(path)
    assert not is_map_file(path.parent / "absent")


def test_newer_versions_and_other_formats_are_refused_naming_both(path):
    data = to_bytes(make_alignment())
    path.write_bytes(with_header(data, version=2))
    with pytest.raises(SutureError, match="up to version 1, got suture-alignment version 2; upgrade"):
        load(path)
    path.write_bytes(with_header(data, format="other"))
    with pytest.raises(SutureError, match="suture-alignment up to version 1, got other version 1"):
        load(path)
    path.write_bytes(with_header(data, sign=False, suture="9.9"))
    with pytest.raises(SutureError, match="damaged"):
        load(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"maps": {"source": {"kind": "spline", "settings": {}}}}, r"kind 'spline' \(known: affine"),
        ({"maps": {"source": {"kind": "affine", "settings": {"power": 2}}}}, "power"),
        ({"maps": {"source": {"kind": "affine"}}}, "settings"),
        ({"maps": {}}, "shared space"),
        ({"maps": {"absent": {"kind": "affine", "settings": {}}}, "spaces": {}, "back": {}}, "weight"),
        ({"spaces": {"source": {"dim": 5}}}, "unit"),
        ({"back": None}, "NoneType"),
    ],
)
def test_maps_that_this_version_cannot_build_are_refused_with_the_path(path, changes, words):
    path.write_bytes(with_header(to_bytes(make_alignment()), **changes))
    with pytest.raises(SutureError, match=rf"map\.safetensors.*{words}"):
        load(path)


def test_names_that_would_mix_tensors_up_are_refused():
    f = MAPS["affine"]
    for name in ("a.b", ".", ""):
        with pytest.raises(UsageError, match="without dots"):
            Alignment({"source": f, name: f})


def test_a_folder_of_files_is_left_with_plain_permissions(path):
    save_alignment(make_alignment(), path)
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("version", sorted(p.stem for p in GOLDEN.glob("*.safetensors")))
def test_golden_files_go_on_being_read(version):
    alignment = load(GOLDEN / f"{version}.safetensors")
    expected = json.loads((GOLDEN / f"{version}.json").read_text())
    probe = np.array(PROBE)
    found = {
        "source to third": alignment.translate("source", "third")(probe),
        "source to target": alignment.translate("source", "target")(probe),
        "target into shared": alignment.map_of("target")(probe[:, :4]),
    }
    assert set(found) == set(expected)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-12, atol=1e-12)
    source, target = alignment.spaces["source"], alignment.spaces["target"]
    assert alignment.provenance == make_alignment().provenance
    assert source.canary_keys is not None
    assert source.canary_keys.tolist() == [2**62, -5]
    assert (source.dim, source.unit, source.fingerprint) == (5, False, "3:00000000000000ff")
    assert source.familiarity == (0.75, 0.125)
    assert (target.dim, target.unit, target.familiarity, target.mean) == (4, True, None, None)


def test_there_is_a_golden_file_of_this_version():
    assert (GOLDEN / f"v{map_file.VERSION}.safetensors").is_file()
