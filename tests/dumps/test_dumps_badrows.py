"""Only rows that are truly NaN, infinite or zero are bad."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from suture.stitching.dumps import find_bad


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_extreme_but_good_rows(dtype: str) -> None:
    limits = np.finfo(dtype)
    values = np.array([limits.max, -limits.max, limits.tiny, limits.smallest_subnormal, 1], dtype)
    x = np.zeros((5, 300), dtype)
    x[:, 7] = values
    assert find_bad(x) == {}
    assert find_bad(np.repeat(values[:, None], 300, axis=1)) == {}


def test_float64_beyond_the_range_of_float32() -> None:
    assert find_bad(np.array([[1e300, 0], [1e-300, 0], [1e-320, 1e-320]])) == {}


@given(
    arrays.arrays(
        st.sampled_from(["f2", "f4", "f8"]),
        st.tuples(st.integers(1, 6), st.integers(1, 4)),
        elements=st.sampled_from([0.0, -0.0, 1.0, np.nan, np.inf, -np.inf, 6e-8]),
    )
)
def test_every_row_has_its_one_reason(x: np.ndarray) -> None:
    found = {int(row): reason for reason, rows in find_bad(x).items() for row in rows}
    for i, row in enumerate(x.tolist()):
        bad = [
            reason
            for reason, holds in (
                ("nan", any(v != v for v in row)),
                ("infinite", any(abs(v) == np.inf for v in row)),
                ("zero", not any(row)),
            )
            if holds
        ]
        assert found.get(i) == (bad[0] if bad else None)
