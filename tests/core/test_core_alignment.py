"""Laws of `Alignment`: maps of several spaces into one, composed, inverted and named."""

import pytest
import torch
from core_examples import MAPS, make_alignment, rotation, rows

from suture.aligners import Affine, Alignment, Identity, Normalize, RefusedError, Space, SutureError, UsageError


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def square(seed: int, dim: int = 5, unit: bool | None = None) -> Alignment:
    f = Affine(rotation(dim, seed) * (1 + seed), rows(dim, seed=seed))
    spaces = {} if unit is None else {name: Space(dim, unit, f"{name} {seed}") for name in ("source", "target")}
    return Alignment({"source": f, "target": Identity(dim)}, spaces=spaces, provenance={"seed": seed})


def test_translate_is_the_way_into_the_shared_space_and_out_again():
    names = ("a", "b", "c")
    alignment = Alignment({name: Affine(rotation(4, i), rows(4, seed=i)) for i, name in enumerate(names)})
    x = rows(10, 4)
    for a in names:
        assert type(alignment.translate(a, a)) is Identity
        for b in names:
            shared = alignment.map_of(b)(alignment.translate(a, b)(x))
            close(shared, alignment.map_of(a)(x))
            close(alignment.translate(b, a)(alignment.translate(a, b)(x)), x)
            for c in names:  # the way there does not matter
                close((alignment.translate(a, b) >> alignment.translate(b, c))(x), alignment.translate(a, c)(x))
    assert alignment.sides == names
    assert alignment.shared_dim == 4


def test_the_way_back_is_used_where_there_is_one():
    alignment = make_alignment()
    x = rows(10, 5)
    close(alignment.translate()(x), alignment.back["target"](alignment.map_of("source")(x)))
    close(alignment.translate("third", "target")(x[:, :3]), alignment.back["target"](x[:, :3]))
    assert type(alignment.translate("target", "target")) is Identity
    assert alignment.translate("target", "target").source_dim == 4
    with pytest.raises(RefusedError, match=r"pinv\(\)"):
        alignment.translate("target", "source")
    assert alignment.translates("source", "target")
    assert not alignment.translates("target", "source")


def test_one_sided_is_the_map_alone():
    f = MAPS["affine down"]
    alignment, x = Alignment.one_sided(f), rows(10, 5)
    assert alignment.sides == ("source", "target")
    assert torch.equal(alignment.translate()(x), f(x))
    assert torch.equal(alignment.map_of("target")(x[:, :3]), x[:, :3])


def test_composition_of_alignments_is_composition_of_maps():
    a, b, c, x = square(0), square(1), square(2), rows(10, 5)
    close((a >> b).translate()(x), b.translate()(a.translate()(x)))
    close(((a >> b) >> c).translate()(x), (a >> (b >> c)).translate()(x))
    assert (a >> b).provenance == {"method": "compose", "parts": [{"seed": 0}, {"seed": 1}]}
    assert (a >> a).provenance == {"method": "compose", "parts": [{"seed": 0}, {"seed": 0}]}
    with pytest.raises(SutureError, match="gives 5 dims and the second takes 4"):
        a >> square(1, 4)


def test_the_ends_of_a_composition_keep_what_is_known_of_them():
    joined = square(0, unit=True) >> square(1, unit=True)
    assert {name: s.fingerprint for name, s in joined.spaces.items()} == {"source": "source 0", "target": "target 1"}
    assert set((square(0, unit=True) >> square(1)).spaces) == {"source"}


def test_spaces_of_unequal_norm_policy_are_not_the_same_space():
    with pytest.raises(RefusedError, match="unit rows and the second starts from one of rows of any length"):
        square(0, unit=True) >> square(1, unit=False)
    with pytest.raises(RefusedError, match="rows of any length and the second starts from one of unit rows"):
        square(0, unit=False) >> square(1, unit=True)


def test_inverse_exchanges_the_sides_and_is_undone_by_itself():
    a, x = square(1, unit=True), rows(10, 5)
    back = a.inverse()
    close(back.translate()(a.translate()(x)), x)
    close(a.translate()(back.translate()(x)), x)
    close(back.translate()(x), a.translate("target", "source")(x))
    close(back.inverse().translate()(x), a.translate()(x))
    assert {name: s.fingerprint for name, s in back.spaces.items()} == {"source": "target 1", "target": "source 1"}
    assert back.provenance == {"method": "invert", "parts": [{"seed": 1}]}
    close((a >> back).translate()(x), x)
    with pytest.raises(RefusedError, match=r"5 to 3 dims.*pinv"):
        Alignment.one_sided(MAPS["affine down"]).inverse()
    with pytest.raises(RefusedError, match="normalize map has no inverse"):
        Alignment.one_sided(Normalize(5)).inverse()


def test_facts_are_added_to_a_new_alignment():
    a = square(1)
    assert a.with_provenance(rows=3).provenance == {"seed": 1, "rows": 3}
    assert a.provenance == {"seed": 1}


def test_precision_of_the_numbers_can_be_chosen():
    small = make_alignment().to(torch.float32)
    assert {
        t.dtype
        for m in (*small.maps.values(), *small.back.values())
        if isinstance(m, Affine)
        for t in m.tensors().values()
    } == {torch.float32}
    close(small.translate()(rows(9, 5)), make_alignment().translate()(rows(9, 5)), 1e-5)


def test_what_is_not_one_alignment_is_refused():
    f, g = MAPS["affine"], MAPS["affine down"]
    with pytest.raises(SutureError, match=r"one shared space, got dims {'a': 5, 'b': 3}"):
        Alignment({"a": f, "b": g})
    with pytest.raises(SutureError, match="shared space"):
        Alignment({})
    with pytest.raises(SutureError, match=r"way back to 'a' of dims \(5, 5\), got \(5, 3\)"):
        Alignment({"a": f}, back={"a": g})
    with pytest.raises(UsageError, match="no space 'b' in this alignment; it has a"):
        Alignment({"a": f}, back={"b": f})
    with pytest.raises(SutureError, match="space 'a' to have the 5 dims that its map takes, got 4"):
        Alignment({"a": f}, spaces={"a": Space(4, False)})
    with pytest.raises(UsageError, match="no space 'b' in this alignment; it has a"):
        Alignment({"a": f}).translate("a", "b")
    with pytest.raises(UsageError, match="no space 'b'"):
        Alignment({"a": f}).translates("b", "a")
