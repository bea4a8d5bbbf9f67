"""Size-aware defaults keep their level where the reference has few rows for each of its quantile cells."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.profile import NumericSpec
from drift_monitor.core.stattests import DEFAULT_ALARM, STATTESTS

REPEATS, ALPHA, MOST = 100, 0.01, 6  # P(Binomial(100, 0.01) > 6) = 0.0001


@pytest.mark.parametrize(("m", "n"), [(500, 150), (2100, 150), (6720, 480), (9800, 700)])
@pytest.mark.parametrize("method", DEFAULT_ALARM["numeric"])
def test_few_false_alarms_on_independent_rows(method: str, m: int, n: int) -> None:
    rng = np.random.default_rng(m + n)
    test, alarms = STATTESTS[method], 0
    for _ in range(REPEATS):
        before, now = rng.normal(size=m), rng.normal(size=n)
        spec = NumericSpec.fit("x", before)
        reference, current = (
            profile_buckets([spec], [pa.RecordBatch.from_pydict({"x": x})])[0].features["x"] for x in (before, now)
        )
        found = test.function(spec, reference, current)
        assert found is not None
        alarms += found.statistic > test.critical(spec, reference, current, ALPHA)
    assert alarms <= MOST
