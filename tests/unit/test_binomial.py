from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from drift_monitor.core.binomial import lower_quantile, upper_quantile

SHARES = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 1e-9, 1 - 1e-9, 0.5])
PROBABILITIES = st.floats(1e-12, 1 - 1e-6) | st.sampled_from([1e-6, 0.005, 0.5])


@given(PROBABILITIES, st.integers(0, 2_000_000), SHARES)
def test_quantiles_are_where_the_tail_crosses(q: float, n: int, share: float) -> None:
    low, high = lower_quantile(q, n, share), upper_quantile(q, n, share)
    law = stats.binom(n, share)
    slack = 1e-9  # relative: two libraries round the same tail differently
    assert law.cdf(low) >= q * (1 - slack)
    assert low == 0 or law.cdf(low - 1) < q * (1 + slack)
    assert law.sf(high) <= q * (1 + slack)
    assert high == 0 or law.sf(high - 1) > q * (1 - slack)
