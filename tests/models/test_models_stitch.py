"""Encoder, map and decoder in one: the same numbers as by hand, and clear words where they do not fit."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from suture.aligners import (
    ALIGNERS,
    Affine,
    Alignment,
    Identity,
    Map,
    Normalize,
    Procrustes,
    RefusedError,
    RelativeRepresentation,
    Space,
    SutureError,
    UsageError,
)
from suture.stitching.models import RelativeSpace, model_map, stitch, swap_encoder

P, Q, C = 6, 4, 3


def mapping() -> Affine:
    g = torch.Generator().manual_seed(0)
    return Affine(torch.randn(P, Q, generator=g), torch.randn(Q, generator=g))


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def with_norms(source: bool, target: bool) -> Alignment:
    one = Alignment.one_sided(mapping())
    return Alignment(one.maps, one.back, {"source": Space(P, source), "target": Space(Q, target)})


def test_modules_give_a_module_of_the_parts() -> None:
    encoder, decoder, x = nn.Linear(5, P), nn.Linear(Q, C), torch.randn(9, 5)
    whole = stitch(encoder, mapping(), decoder)
    torch.testing.assert_close(whole(x), decoder(mapping()(encoder(x))))
    assert whole.encoder is encoder
    assert whole.decoder is decoder
    assert not any(p.requires_grad for p in whole.map.parameters())
    torch.testing.assert_close(torch.export.export(whole, (x,)).module()(x), whole(x))


@pytest.mark.parametrize("name", ["ridge", "landmark", "local", "mlp", "relative", "relative-product"])
def test_every_kind_of_map_goes_into_a_module(name: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, P)).astype(np.float32)
    y = np.tanh(x @ rng.normal(size=(P, Q))).astype(np.float32)
    alignment = ALIGNERS[name]().fit(x, y)
    whole = stitch(nn.Identity(), alignment, nn.Linear(Q, C))
    rows = torch.from_numpy(x)
    torch.testing.assert_close(whole(rows), whole.decoder(alignment.translate()(rows)), rtol=1e-4, atol=1e-4)


def test_the_map_takes_the_dtype_of_its_decoder() -> None:
    whole = stitch(nn.Linear(5, P).double(), mapping(), nn.Linear(Q, C).double())
    assert whole(torch.randn(2, 5, dtype=torch.float64)).dtype == torch.float64


HALVES = (torch.float32, torch.float16), (torch.float16, torch.float32), (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(("first", "second"), HALVES)
@pytest.mark.parametrize("between", [mapping(), Affine(torch.eye(P), torch.zeros(P)), Normalize(P), Identity(P)])
def test_parts_of_other_precision_are_met_by_casts(first: torch.dtype, second: torch.dtype, between: Map) -> None:
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(5, P), nn.Linear(between.target_dim, C)
    x = torch.randn(9, 5)
    expected = decoder(between(encoder(x)))
    whole = stitch(encoder.to(first), between, decoder.to(second))
    came = whole(x.to(first))
    assert came.dtype == second
    torch.testing.assert_close(came.float(), expected, rtol=5e-2, atol=5e-2)
    torch.testing.assert_close(torch.export.export(whole, (x.to(first),)).module()(x.to(first)), came)
    host = nn.Sequential(nn.Linear(5, between.target_dim), decoder).to(second)
    torch.testing.assert_close(swap_encoder(host, "0", encoder, between)(x.to(first)), came)
    assert whole.double()(x.double()).dtype == torch.float64


def test_rows_are_scaled_as_those_of_the_fit_were() -> None:
    x = np.random.default_rng(0).normal(size=(8, P)).astype(np.float32)
    plain = mapping()
    for source in (False, True):
        for target in (False, True):
            expected = plain(unit(x) if source else x)
            got = model_map(with_norms(source, target))(x)
            np.testing.assert_allclose(got, unit(expected) if target else expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model_map(with_norms(True, True), normalize="none")(x), plain(x))
    with pytest.raises(UsageError, match="auto, l2 or none"):
        model_map(plain, normalize="unit")  # type: ignore[arg-type]


class Output(NamedTuple):
    tokens: Tensor
    pooled: Tensor


class Tokens(nn.Module):
    """An encoder of several inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, P)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Output:
        tokens = self.table(ids)
        return Output(tokens, tokens.mean(1))


def test_encoders_of_several_outputs() -> None:
    encoder, decoder, ids = Tokens(), nn.Linear(Q, C), torch.randint(11, (4, 5))
    tokens = stitch(encoder, mapping(), decoder, output="tokens")(ids, mask=None)
    torch.testing.assert_close(tokens, decoder(mapping()(encoder(ids).tokens)))
    pooled = stitch(encoder, mapping(), decoder, output=1)(ids)
    torch.testing.assert_close(pooled, decoder(mapping()(encoder(ids).pooled)))
    with pytest.raises(SutureError, match="no output 'last'"):
        stitch(encoder, mapping(), decoder, output="last")(ids)
    with pytest.raises(SutureError, match="say which is meant"):
        stitch(encoder, mapping(), decoder)(ids)


def test_feature_maps_are_mapped_along_their_channels() -> None:
    encoder, decoder, images = nn.Conv2d(1, P, 3), nn.Conv2d(Q, C, 1), torch.randn(2, 1, 9, 9)
    features = encoder(images)
    expected = decoder(mapping()(features.movedim(1, -1)).movedim(-1, 1))
    torch.testing.assert_close(stitch(encoder, mapping(), decoder, dim=1)(images), expected)
    with pytest.raises(SutureError, match="along axis -1"):
        stitch(encoder, mapping(), decoder)(images)


def test_any_callables() -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(5, P)), rng.normal(size=(30, 5))
    head = LogisticRegression().fit(mapping()(x @ weight), np.arange(30) % 3)
    whole = stitch(lambda rows: rows @ weight, mapping(), head.predict)
    assert np.array_equal(whole(x), head.predict(mapping()(x @ weight)))
    with pytest.raises(UsageError, match=r"head\.predict"):
        stitch(lambda rows: rows, mapping(), head)
    with pytest.raises(SutureError, match="6 dims"):
        stitch(lambda rows: rows, mapping(), head.predict)(x)
    for one in (np.ones(P, np.float32), torch.ones(P)):  # there is no such axis
        with pytest.raises(SutureError, match="along axis 1"):
            stitch(lambda rows: rows, mapping(), lambda rows: rows, dim=1)(one)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"encoder": nn.Linear(5, Q)})
        self.again = self.inner["encoder"]
        self.head = nn.Linear(Q, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner["encoder"](x) + self.again(x))


def test_an_encoder_is_swapped_in_a_copy() -> None:
    model, encoder, x = Model(), nn.Linear(5, P), torch.randn(7, 5)
    before = model(x)
    swapped = swap_encoder(model, "inner.encoder", encoder, mapping())
    torch.testing.assert_close(swapped(x), model.head(2 * mapping()(encoder(x))))
    torch.testing.assert_close(model(x), before)
    assert swapped.head is not model.head
    assert swapped.inner.encoder.encoder is encoder  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="inner, again, head"):
        swap_encoder(model, "encodr", encoder, mapping())
    with pytest.raises(UsageError, match="expected a module, got function"):
        swap_encoder(model, "inner.encoder", lambda rows: rows, mapping())  # type: ignore[arg-type]


def test_a_map_the_wrong_way_round_is_named() -> None:
    whole = stitch(nn.Linear(5, Q), mapping(), nn.Linear(Q, C))
    with pytest.raises(SutureError, match="the right way round"):
        whole(torch.randn(2, 5))


def rotated(rows: Any, seed: int, dim: int) -> Any:
    """An isometric copy of rows in another space, scaled and moved."""
    rng = np.random.default_rng(seed)
    return 3 * rows @ np.linalg.qr(rng.normal(size=(dim, dim)))[0][: rows.shape[1]] + rng.normal(size=dim)


@pytest.mark.parametrize("similarity", ["cosine", "inner", "basis", "euclidean", "angular", "geodesic", "whitened"])
def test_a_relative_decoder_takes_any_encoder_with_anchors(similarity: Any) -> None:
    rng = np.random.default_rng(0)
    latent, labels = rng.normal(size=(400, P)), rng.integers(0, 3, 400)
    latent[:, :3] += 3 * np.eye(3)[labels]
    old, new = rotated(latent, 1, 8), rotated(latent, 2, 9) / 3
    if similarity in ("inner", "euclidean", "geodesic"):  # these do feel the scale
        new *= 3
    space = RelativeSpace(40, similarity=similarity, unit=similarity != "whitened")
    if similarity == "basis":
        space = RelativeSpace(7, similarity=similarity)
    a, rows = space.anchors, slice(100, 400)
    decoder = LogisticRegression(max_iter=2000).fit(space.of(old[:a], old)(old[rows]), labels[rows])
    whole = stitch(lambda x: x, space.of(new[:a], new), decoder.predict)
    assert np.mean(whole(new[rows]) == decoder.predict(space.of(old[:a], old)(old[rows]))) > 0.97
    assert np.mean(whole(new[rows]) == labels[rows]) > 0.9


def test_a_relative_alignment_serves_a_relative_decoder() -> None:
    x = np.random.default_rng(0).normal(size=(200, P)).astype(np.float32)
    alignment = RelativeRepresentation(anchors=12).fit(x, rotated(x, 1, 9).astype(np.float32))
    decoder = nn.Linear(12, C)
    whole = stitch(nn.Identity(), alignment, decoder, into="shared")
    rows = torch.from_numpy(x)
    torch.testing.assert_close(whole(rows), decoder(alignment.map_of("source")(rows)), rtol=1e-4, atol=1e-5)


def test_other_anchors_are_refused() -> None:
    space = RelativeSpace(10)
    for anchors in (np.ones((9, 4)), np.full((10, 4), np.nan)):
        with pytest.raises(RefusedError, match="anchors"):
            space.of(anchors)
    for wrong in (
        {"anchors": 1},
        {"anchors": 50.5},
        {"anchors": None},
        {"anchors": 5, "similarity": "nonsense"},
        {"anchors": 5, "shrinkage": -1},
        {"anchors": 5, "neighbours": 0},
    ):
        with pytest.raises(UsageError):
            RelativeSpace(**wrong)  # type: ignore[arg-type]


def test_an_alignment_of_another_direction_says_so() -> None:
    alignment = Procrustes().fit(
        np.random.default_rng(0).normal(size=(50, 8)), np.random.default_rng(1).normal(size=(50, 3))
    )
    with pytest.raises(RefusedError, match="no exact inverse"):
        stitch(nn.Identity(), alignment, nn.Linear(8, 2), side="target", into="source")
