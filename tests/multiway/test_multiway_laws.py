"""Many spaces: rotated copies are recovered with rows missing, closed forms hold, islands are refused."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from suture.aligners import (
    ALIGNERS,
    GCCA,
    Affine,
    Alignment,
    Bind,
    GeneralisedProcrustes,
    MultiwayAligner,
    Procrustes,
    RefusedError,
    SharedResponse,
    SutureError,
    UsageError,
    add_space,
    load,
    save_alignment,
)
from suture.aligners.multiway.base import any_to_any
from suture.aligners.multiway.many import Gathered
from suture.aligners.multiway.moments import ManyBuilder

MANY = {name: kind for name, kind in ALIGNERS.items() if issubclass(kind, MultiwayAligner)}
N, P = 400, 12


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(p: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(p, p, seed=seed))[0]


def copies(m: int = 3, *, missing: float = 0.3, noise: float = 0.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rotated, shifted, scaled copies of skewed rows, a share of each missing; and which items are there."""
    truth = normal(N, P) * torch.linspace(2, 0.5, P) + 1
    spaces, keys = {}, {}
    for k in range(m):
        kept = torch.randperm(N, generator=torch.Generator().manual_seed(k))[: int(N * (1 - missing))]
        rows = (1 + k) * truth @ rotation(P, 10 + k) + 30 * normal(P, seed=20 + k)
        spaces["abcdef"[k]] = (rows + noise * normal(N, P, seed=40 + k))[kept]
        keys["abcdef"[k]] = kept
    return spaces, keys


def worst(alignment: Alignment, spaces: Mapping[str, Tensor], keys: Mapping[str, Tensor]) -> float:
    """The largest distance of a translated row from its mate, over all ordered pairs."""
    found = []
    for a in spaces:
        for b in spaces:
            both = np.intersect1d(keys[a], keys[b], return_indices=True)
            mapped = alignment.translate(a, b)(spaces[a][both[1]])
            found.append(float((mapped - spaces[b][both[2]]).norm(dim=1).max()))
    return max(found)


def test_the_registry_holds_the_family() -> None:
    assert set(MANY) == {"gpa", "gcca", "srm", "bind"}
    assert all(kind.needs == "many spaces" and kind.name == name for name, kind in MANY.items())


@pytest.mark.parametrize("aligner", [GeneralisedProcrustes(), Bind(strength=0.0)])
def test_rotated_copies_with_missing_rows_are_recovered(aligner: MultiwayAligner) -> None:
    spaces, keys = copies()
    alignment = aligner.fit_spaces(spaces, keys)
    assert worst(alignment, spaces, keys) < 1e-4
    assert alignment.sides == ("a", "b", "c")
    assert alignment.provenance["space_rows"] == dict.fromkeys("abc", 280)
    assert all(found["recall@1"] == 1 for found in alignment.provenance["any_to_any"].values())
    assert len(alignment.provenance["any_to_any"]) == 6


def test_shared_response_and_gcca_recover_copies_of_equal_width() -> None:
    spaces, keys = copies()
    spaces = {name: rows / (1 + k) for k, (name, rows) in enumerate(spaces.items())}
    assert worst(SharedResponse(rank=P).fit_spaces(spaces, keys), spaces, keys) < 1e-4
    spaces, keys = copies(missing=0.0)
    found = GCCA(rank=P, eps=0.0).fit_spaces(spaces, keys)
    assert worst(found, spaces, keys) < 1e-2
    assert found.provenance["agreement"][:3] == pytest.approx([1, 1, 1], abs=1e-3)


def test_two_spaces_by_gpa_are_procrustes() -> None:
    x, y = normal(N, P), normal(N, P, seed=1) + normal(N, P)
    one = GeneralisedProcrustes(scale=False).fit_spaces({"a": x, "b": y}).translate("a", "b")
    other = Procrustes().fit(x, y).translate()
    assert isinstance(one, Affine)
    assert isinstance(other, Affine)
    torch.testing.assert_close(one.weight, other.weight, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.bias, other.bias, atol=1e-6, rtol=0)


def test_the_loss_is_its_formula_and_falls() -> None:
    spaces, keys = copies(noise=0.5)
    losses = [
        GeneralisedProcrustes(scale=False, rounds=r).fit_spaces(spaces, keys).provenance["alternation"]
        for r in (1, 2, 50)
    ]
    assert losses[0]["loss"] >= losses[1]["loss"] >= losses[2]["loss"]
    assert losses[2]["settled"]
    assert not losses[0]["settled"]
    assert "rounds=2" in losses[0]["advice"]
    alignment = GeneralisedProcrustes(scale=False, rounds=50).fit_spaces(spaces, keys)
    total, count = torch.zeros(N, P, dtype=torch.float64), torch.zeros(N, dtype=torch.float64)
    mapped = {name: alignment.map_of(name)(rows) for name, rows in spaces.items()}
    for name, rows in mapped.items():
        total[keys[name]] += rows
        count[keys[name]] += 1
    mean = total / count.clamp(min=1)[:, None]
    naive = sum(float((rows - mean[keys[name]]).square().sum()) for name, rows in mapped.items())
    assert naive == pytest.approx(losses[2]["loss"], rel=1e-6)


def test_gcca_is_maxvar() -> None:
    spaces = {"a": normal(N, 5), "b": normal(N, 4, seed=1), "c": normal(N, 6, seed=2)}
    shared = normal(N, 2, seed=3)
    spaces = {name: x + 2 * shared @ normal(2, x.shape[1], seed=9) for name, x in spaces.items()}
    projections = torch.zeros(N, N, dtype=torch.float64)
    for x in spaces.values():
        c = x - x.mean(0)
        projections += c @ torch.linalg.inv(c.T @ c) @ c.T
    values, vectors = torch.linalg.eigh(projections)
    best = vectors.flip(1)[:, :2]
    alignment = GCCA(rank=2, eps=0.0, power=0.0).fit_spaces(spaces)
    mean = sum((alignment.map_of(n)(x) for n, x in spaces.items()), torch.zeros(N, 2, dtype=torch.float64)) / 3
    q, _ = torch.linalg.qr(mean)
    torch.testing.assert_close(q @ q.T, best @ best.T, atol=1e-6, rtol=0)
    rho = (values.flip(0)[:2] - 1) / 2
    assert alignment.provenance["agreement"] == pytest.approx(rho.tolist(), abs=1e-4)


def test_unequal_dims_and_axes_by_variance() -> None:
    truth = normal(N, 8) * torch.linspace(3, 0.2, 8)
    turn = rotation(P, 1)
    spaces = {"narrow": truth @ rotation(8, 2), "wide": truth @ turn[:8] + 5}
    alignment = GeneralisedProcrustes().fit_spaces(spaces)
    mapped = alignment.translate("narrow", "wide")(spaces["narrow"])
    torch.testing.assert_close(mapped, spaces["wide"], atol=1e-5, rtol=0)
    shared = alignment.map_of("wide")(spaces["wide"])
    spread = shared.var(0)
    assert alignment.shared_dim == P
    assert bool((spread[:-1] >= spread[1:] - 1e-9).all())
    assert float(shared.mean(0).abs().max()) < 1e-6


def test_a_correction_is_between_the_rotation_and_least_squares() -> None:
    spaces, keys = copies(noise=1.0)
    fits = [GeneralisedProcrustes(strength=s).fit_spaces(spaces, keys) for s in (None, 1e9, 0.1)]
    weights = [f.map_of("b").tensors()["weight"] for f in fits]
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=0)
    assert float((weights[0] - weights[2]).abs().max()) > 1e-3


def test_a_chain_of_overlaps_is_enough_and_islands_are_refused() -> None:
    spaces, order = copies(missing=0.0)
    truth = {name: rows[order[name].argsort()] for name, rows in spaces.items()}
    keys = {"a": torch.arange(0, 200), "b": torch.arange(100, 300), "c": torch.arange(200, 400)}
    parts = {name: truth[name][keys[name]] for name in truth}
    alignment = GeneralisedProcrustes().fit_spaces(parts, keys)
    torch.testing.assert_close(alignment.translate("a", "c")(truth["a"]), truth["c"], atol=0.05, rtol=0)
    assert "a -> c" not in alignment.provenance["any_to_any"]
    keys["c"] = keys["c"] + 1000
    for kind in (GeneralisedProcrustes(), GCCA(rank=2), SharedResponse(rank=2)):
        with pytest.raises(RefusedError, match="share none with"):
            kind.fit_spaces(parts, keys)


def test_a_space_is_added_and_the_others_stay() -> None:
    spaces, keys = copies(4)
    last, last_keys = spaces.pop("d"), keys.pop("d")
    alignment = GeneralisedProcrustes().fit_spaces(spaces, keys)
    more = add_space(alignment, "d", last, spaces, keys=last_keys, known_keys=keys)
    assert more.sides == ("a", "b", "c", "d")
    for name in spaces:
        assert torch.equal(more.map_of(name).tensors()["weight"], alignment.map_of(name).tensors()["weight"])
    assert worst(more, {**spaces, "d": last}, {**keys, "d": last_keys}) < 1e-4
    with pytest.raises(UsageError, match="already"):
        add_space(more, "d", last, spaces, keys=last_keys, known_keys=keys)


def test_binding_through_a_shared_modality() -> None:
    base = normal(N, P)
    text = base @ rotation(P, 1) + 3
    image = (base + 0.01 * normal(N, P, seed=5)) @ rotation(P, 1) - 2  # the same space, with a gap between modalities
    spaces = {"base": base, "text": text[:300], "image": image[300:]}
    keys = {"base": torch.arange(N), "text": torch.arange(300), "image": torch.arange(300, N) + 10_000}
    alignment = Bind(same="image=text").fit_spaces(spaces, keys)
    mapped = alignment.translate("image", "base")(spaces["image"])
    assert float(((mapped[:, None] - base[300:]).norm(dim=2).argmin(1) == torch.arange(100)).double().mean()) > 0.95
    with pytest.raises(RefusedError, match="image shares no item with the base"):
        Bind().fit_spaces(spaces, keys)
    with pytest.raises(UsageError, match="no space 'sound'"):
        Bind(same="sound=text").fit_spaces(spaces, keys)


def test_the_file_keeps_many_spaces(tmp_path: object) -> None:
    from pathlib import Path

    spaces, keys = copies()
    alignment = GeneralisedProcrustes().fit_spaces({n: x.float() for n, x in spaces.items()}, keys)
    path = Path(str(tmp_path)) / "many.safetensors"
    save_alignment(alignment, path)
    again = load(path)
    assert again.sides == alignment.sides
    assert torch.equal(again.translate("b", "c")(spaces["b"]), alignment.translate("b", "c")(spaces["b"]))


def test_blocks_and_order_do_not_matter() -> None:
    spaces, keys = copies(noise=0.3)
    whole = ManyBuilder(Gathered.of(spaces, keys).dims)
    parts = ManyBuilder(Gathered.of(spaces, keys).dims, {n: x.mean(0) for n, x in spaces.items()})
    for block in Gathered.of(spaces, keys).blocks(7):
        parts.add(block)
    for block in Gathered.of(spaces, keys).blocks():
        whole.add(block)
    one, other = whole.moments(), parts.moments()
    torch.testing.assert_close(one.covariance("b"), other.covariance("b"), rtol=1e-9, atol=1e-6)
    assert one.items == other.items == int(torch.cat(list(keys.values())).unique().numel())
    assert torch.equal(one.shared, other.shared)
    turned = {n: x.flip(0) for n, x in spaces.items()}
    a = GeneralisedProcrustes().fit_spaces(spaces, keys)
    b = GeneralisedProcrustes().fit_spaces(turned, {n: k.flip(0) for n, k in keys.items()})
    torch.testing.assert_close(a.map_of("a").tensors()["weight"], b.map_of("a").tensors()["weight"], atol=1e-9, rtol=0)
    assert a.spaces["a"].fingerprint == b.spaces["a"].fingerprint


def test_held_out_items_are_not_fitted() -> None:
    spaces = {name: normal(200, 30, seed=i) for i, name in enumerate("abc")}  # nothing in common
    held_out = GeneralisedProcrustes().fit_spaces(spaces).provenance["any_to_any"]
    assert all(found["items"] == 20 for found in held_out.values())
    assert np.mean([found["recall@1"] for found in held_out.values()]) < 0.2
    fitted = GeneralisedProcrustes().fit_spaces(spaces)
    memorised = any_to_any(fitted, Gathered.of(spaces))
    assert np.mean([found["recall@1"] for found in memorised.values()]) > 0.1


@pytest.mark.parametrize("name", MANY)
def test_bad_input_is_refused(name: str) -> None:
    aligner = MANY[name]()
    x = normal(100, 6)
    rank = replace(aligner, rank=2) if name in ("gcca", "srm") else aligner
    with pytest.raises(UsageError, match="at least two spaces"):
        aligner.fit_spaces({"a": x})
    with pytest.raises(RefusedError, match="every space needs as many"):
        aligner.fit_spaces({"a": x, "b": x[:50]})
    with pytest.raises(RefusedError, match="every item once"):
        aligner.fit_spaces({"a": x, "b": x}, {"a": torch.zeros(100, dtype=torch.int64), "b": torch.arange(100)})
    with pytest.raises(SutureError, match="finite"):
        aligner.fit_spaces({"a": x, "b": x * torch.nan})
    with pytest.raises(RefusedError, match="no variance"):
        rank.fit_spaces({"a": x, "b": torch.ones(100, 6)})
    with pytest.raises(UsageError, match="fit_spaces"):
        aligner.fit(x, x)
    if name in ("gcca", "srm"):
        with pytest.raises(RefusedError, match="at least 50 items"):
            aligner.fit_spaces({"a": normal(30, 40), "b": normal(30, 40)})
