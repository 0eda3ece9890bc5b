"""Laws of maps, over one list of example maps of every kind."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from core_examples import MAPS, make_maps, rotation, rows
from torch import nn

from suture.aligners import Affine, Chain, Identity, Map, Normalize, RefusedError, SutureError
from suture.aligners.maps import MAP_KINDS, MapModule, build_map, chain

TOLERANCE = {torch.float16: 2e-3, torch.float32: 2e-5, torch.float64: 1e-12}
every = pytest.mark.parametrize("f", MAPS.values(), ids=MAPS)
WAYS_ON = {
    "affine": lambda d: Affine(rows(d, 4, seed=11), rows(4, seed=12)),
    "normalize": Normalize,
    "identity": Identity,
    "chain": lambda d: Normalize(d) >> Affine(rows(d, 2, seed=13), rows(2, seed=14)),
}
some = pytest.mark.parametrize("onward", WAYS_ON.values(), ids=WAYS_ON)


def invertible(f: Map) -> bool:
    try:
        f.inverse()
    except RefusedError:
        return False
    return True


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_the_examples_are_of_every_kind():
    assert {m.kind for m in MAPS.values()} == set(MAP_KINDS)
    assert all(kind.kind == name for name, kind in MAP_KINDS.items())


@every
@some
def test_joined_maps_are_applied_left_to_right(f, onward):
    g, x = onward(f.target_dim), rows(20, 5, seed=9)
    joined = f >> g
    assert (joined.source_dim, joined.target_dim) == (f.source_dim, g.target_dim)
    close(joined(x), g(f(x)), 1e-6 if f is MAPS["affine float32"] else 1e-12)


@every
@some
def test_joining_is_associative(f, onward):
    g = onward(f.target_dim)
    for last in WAYS_ON.values():
        h, x = last(g.target_dim), rows(20, 5, seed=9)
        close(((f >> g) >> h)(x), (f >> (g >> h))(x), 1e-6 if f is MAPS["affine float32"] else 1e-12)


@every
def test_identity_changes_nothing(f):
    x = rows(20, 5, seed=9)
    for same in (Identity(5) >> f, f >> Identity(f.target_dim)):
        assert type(same) is type(chain(f))
        close(same(x), f(x))
    assert isinstance(Identity(5) >> Identity(5), Identity)


@every
def test_the_inverse_undoes_the_map_on_both_sides_or_is_refused(f):
    x = rows(20, 5, seed=9)
    if not invertible(f):
        with pytest.raises(RefusedError, match=r"in Python its pinv\(\)" if f.kind == "affine" else "no inverse"):
            f.inverse()
        return
    back = f.inverse()
    tolerance = 1e-5 if f is MAPS["affine float32"] else 1e-10
    close(back(f(x)), x, tolerance)
    close(f(back(x)), x, tolerance)
    close(back.inverse()(x), f(x), tolerance)


def test_which_of_the_examples_have_an_inverse():
    assert {name for name, f in MAPS.items() if invertible(f)} == {
        *("identity", "rotation", "affine", "affine float32", "affine transposed", "affine chain")
    }
    nearly = torch.diag(torch.tensor([1.0, 1.0, 0.9e-5], dtype=torch.float64))
    with pytest.raises(RefusedError, match=r"condition number 1\.1e"):
        Affine(nearly, torch.zeros(3, dtype=torch.float64)).inverse()
    nearly[2, 2] = 1.1e-5
    Affine(nearly, torch.zeros(3, dtype=torch.float64)).inverse()
    with pytest.raises(RefusedError, match="from 5 to 3 dims"):
        MAPS["affine down"].inverse()


@pytest.mark.parametrize("name", ["affine", "affine down", "affine up", "affine singular"])
def test_pinv_is_the_least_squares_way_back(name):
    f, y = MAPS[name], rows(20, MAPS[name].target_dim, seed=9)
    assert isinstance(f, Affine)
    back = f.pinv()
    want = torch.linalg.lstsq(f.weight.T, (y - f.bias).T, driver="gelsd").solution.T
    close(back(y), want, 1e-8)
    close(f(back(f(back(y)))), f(back(y)), 1e-8)


@every
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 3, 5), (0, 5)])
def test_kind_dtype_and_shape_are_kept(f, dtype, shape):
    x = rows(*shape, seed=9, dtype=dtype)
    y = f(x)
    assert isinstance(y, torch.Tensor)
    assert (y.dtype, y.device, y.shape) == (dtype, x.device, (*shape[:-1], f.target_dim))
    z = f(x.numpy())
    assert isinstance(z, np.ndarray)
    assert np.array_equal(z, y.numpy())
    assert z.dtype == x.numpy().dtype
    exact = f(x.double())
    tolerance = max(TOLERANCE[dtype], 1e-6 if f is MAPS["affine float32"] else 0)
    torch.testing.assert_close(y.double(), exact, rtol=tolerance, atol=tolerance)


@every
def test_a_row_alone_and_in_a_batch_are_mapped_alike(f):
    x = rows(4, 6, 5, seed=9)
    close(torch.stack([torch.stack([f(row) for row in part]) for part in x]), f(x))
    close(f(x.reshape(-1, 5)).reshape(4, 6, -1), f(x))


@every
def test_half_precision_is_rounded_once_at_the_end(f):
    x = rows(50, 5, seed=9).half()
    assert torch.equal(f(x), f(x.float()).half())
    assert f(x.bfloat16()).dtype == torch.bfloat16


@every
def test_input_is_left_alone_and_output_has_its_own_memory(f):
    for dtype in TOLERANCE:
        x = rows(6, 5, seed=9, dtype=dtype)
        before = x.clone()
        f(x).fill_(7)
        assert torch.equal(x, before)
        f(x.numpy()).fill(7)
        assert torch.equal(x, before)
    locked = np.ones((3, 5))
    locked.setflags(write=False)
    f(locked)


@every
def test_wrong_rows_are_refused_with_what_was_expected_and_what_came(f):
    with pytest.raises(SutureError, match=r"5 dims, got shape \(3, 6\)"):
        f(torch.ones(3, 6))
    with pytest.raises(SutureError, match=r"5 dims, got shape \(\)"):
        f(torch.tensor(1.0))
    for bad in (torch.ones(3, 5, dtype=torch.int64), np.ones((3, 5), int), np.ones((3, 5), "c8")):
        with pytest.raises(SutureError, match="convert it first"):
            f(bad)
    with pytest.raises(SutureError, match="got list"):
        f([1.0] * 5)
    with pytest.raises(SutureError, match=rf"gives {f.target_dim} dims and the second takes {f.target_dim + 1}"):
        f >> Identity(f.target_dim + 1)


@every
def test_the_module_is_the_map(f):
    state = torch.get_rng_state()
    module, x = f.module(), rows(20, 5, seed=9, dtype=torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(module(x), f(x), rtol=1e-5, atol=1e-5)
    assert bool(module.state_dict()) == bool(f.tensors())
    assert not any(p.requires_grad for p in module.parameters())
    assert all(t.dtype == torch.float32 for t in module.state_dict().values())
    double = module.double()
    torch.testing.assert_close(double(x.double()), f(x.double()), rtol=1e-6, atol=1e-6)


def test_modules_of_the_plain_kinds_are_those_of_torch():
    linear = MAPS["affine down"].module()
    assert type(linear) is nn.Linear
    assert linear.weight.shape == (3, 5)
    assert linear.weight.is_contiguous()
    assert type(MAPS["identity"].module()) is nn.Identity
    assert type(MAPS["chain"].module()) is nn.Sequential


@every
def test_changing_a_module_does_not_change_the_map(f):
    x = rows(5, 5, seed=9)
    before = f(x)
    for module in (f.module(), MapModule(f) if "." not in "".join(f.tensors()) else f.module()):
        with torch.no_grad():
            for tensor in module.state_dict().values():
                tensor.zero_()
        assert torch.equal(f(x), before)


def test_map_module_of_any_kind_has_the_numbers_as_buffers():
    f = MAPS["affine float32"]
    module, x = MapModule(f), rows(3, 5, dtype=torch.float32)
    assert torch.equal(module(x), f(x))
    assert set(module.state_dict()) == {"weight", "bias"}
    assert module.half().state_dict()["weight"].dtype == torch.float16


@every
def test_a_map_is_built_again_from_its_parts(f):
    x = rows(20, 5, seed=9)
    again = build_map(f.kind, f.tensors(), f.settings())
    assert type(again) is type(f)
    assert torch.equal(again(x), f(x))
    assert again.settings() == f.settings()


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(SutureError, match=r"unknown map kind 'spline' \(known: affine, chain"):
        build_map("spline", {}, {})


def test_chains_are_flat_and_fuse_neighbouring_affine_maps():
    a, b = MAPS["affine"], MAPS["affine down"]
    assert type(a >> b) is Affine
    assert [m.kind for m in (a >> b >> Normalize(3) >> Affine(rows(3, 3), rows(3)) >> Identity(3)).maps] == [
        *("affine", "normalize", "affine")
    ]
    nested = chain(Chain((Normalize(5), Identity(5))), Chain((a, b)))
    assert [m.kind for m in nested.maps] == ["normalize", "affine"]
    assert (MAPS["affine float32"] >> a).weight.dtype == torch.float64
    assert (MAPS["affine float32"] >> MAPS["affine float32"]).weight.dtype == torch.float32
    with pytest.raises(SutureError, match=r"\(5, 3\), \(5, 5\)"):
        Chain((b, a))
    with pytest.raises(SutureError, match="Chain"):
        Chain(())


def test_affine_says_what_shapes_it_needs():
    for weight, bias in ((rows(5), rows(5)), (rows(5, 3), rows(5)), (rows(5, 3), rows(1, 3))):
        with pytest.raises(SutureError, match=r"weight \(p, q\) and bias \(q,\)"):
            Affine(weight, bias)


def test_affine_between_means():
    mean_x, mean_y, weight, x = rows(5, seed=1), rows(3, seed=2), rows(5, 3, seed=3), rows(9, 5)
    close(Affine.between(mean_x, weight, mean_y)(x), (x - mean_x) @ weight + mean_y)


def test_deviation_is_zero_for_isometries_only():
    zero = torch.zeros(5, dtype=torch.float64)
    assert Affine(rotation(5), zero).deviation() < 1e-12
    assert Affine(rotation(5)[:3], zero).deviation() < 1e-12
    assert Affine(rotation(5)[:, :3], zero[:3]).deviation() < 1e-12
    assert Affine(2 * rotation(5), zero).deviation() == pytest.approx(3 * 5**0.5)


@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-25, 1e-12, 1.0, 1e12])
def test_normalized_rows_have_length_one_or_are_as_good_as_zero(scale):
    x = scale * rows(10, 5, dtype=torch.float32)
    norm = torch.linalg.vector_norm(Normalize(5)(x).double(), dim=1)
    assert float(norm.max()) < 1 + 1e-6
    if scale > 1e-15:
        assert float(norm.min()) > 1 - 1e-6
    assert torch.equal(Normalize(5)(torch.zeros(2, 5)), torch.zeros(2, 5))


@every
def test_maps_cannot_be_changed(f):
    for name in vars(f):
        with pytest.raises(FrozenInstanceError):
            setattr(f, name, None)
    fresh = {id(g): g for g in make_maps().values()}
    x = rows(5, 5)
    for g in fresh.values():
        before = {name: t.clone() for name, t in g.tensors().items()}
        g(x), g.module(), g >> Normalize(g.target_dim)
        assert all(torch.equal(t, before[name]) for name, t in g.tensors().items())


def test_affine_maps_have_one_layout_in_memory_and_no_gradient():
    f = Affine(rows(4, 4).T.requires_grad_(), rows(8)[::2])
    assert f.weight.is_contiguous()
    assert f.bias.is_contiguous()
    assert not f.weight.requires_grad
