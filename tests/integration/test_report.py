"""The Evidently report, with columns nobody would wish for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from drift_monitor.actions.evidently_page import harmless, render

RNG = np.random.default_rng(5)
ROWS = 3000
HOSTILE = "</script><script>alert(1)</script>"


def sample(shift: float) -> dict[str, object]:
    return {
        "distance": RNG.normal(1000 + 500 * shift, 300, ROWS),
        "carrier": RNG.choice(["UA", "AA", "B6"], ROWS),
        "raining": RNG.random(ROWS) < 0.3 + shift / 10,
        "departure": (1_700_000_000_000_000 + RNG.integers(0, 10**9, ROWS)).astype("datetime64[us]"),
    }


KINDS = {"distance": "numeric", "carrier": "categorical", "raining": "boolean", "departure": "datetime"}


def draw(reference: pa.Table, current: pa.Table, kinds: dict[str, str]):
    return render(reference, current, kinds, title="drift of flights", facts={"window": "a day"})


def test_every_kind_is_drawn() -> None:
    page = draw(pa.table(sample(0)), pa.table(sample(1)), KINDS)
    assert page.omitted == {}
    assert page.notes == {"departure": "shown as days since 2023-11-14 22:13 UTC"}
    for column in KINDS:
        assert f"Drift in column '{column}'" in page.html
    assert "<h1>drift of flights</h1>" in page.html
    assert "<title>drift of flights</title>" in page.html


def test_bad_columns_are_left_out_with_their_reason_and_the_others_stay() -> None:
    reference, current = sample(0), sample(1)
    kinds = dict(KINDS)
    for name, kind, before, now in [
        ("nulls", "numeric", RNG.random(ROWS), pa.nulls(ROWS, pa.float64())),
        ("infinite", "numeric", RNG.random(ROWS), np.full(ROWS, np.inf)),
        ("retyped", "numeric", RNG.random(ROWS), ["about ten"] * ROWS),
        ("nested", "categorical", ["a"] * ROWS, [[1]] * ROWS),
        ("blank", "categorical", ["a"] * ROWS, pa.nulls(ROWS, pa.string())),
    ]:
        reference[name], current[name], kinds[name] = before, now, kind
    reference["dropped"], kinds["dropped"] = RNG.random(ROWS), "numeric"
    current["new"], kinds["new"] = RNG.random(ROWS), "numeric"
    page = draw(pa.table(reference), pa.table(current), kinds)
    assert page.omitted == {
        "nulls": "no usable value in the 3000 live rows",
        "infinite": "no usable value in the 3000 live rows",
        "retyped": "the live column is of type string, which cannot be read as numeric",
        "nested": "the live column is of type list<item: int64>, which cannot be read as categorical",
        "blank": "no usable value in the 3000 live rows",
        "dropped": "not among the live columns",
        "new": "not among the reference columns",
    }
    for column in KINDS:
        assert f"Drift in column '{column}'" in page.html
    assert "<code>retyped</code>: the live column is of type string" in page.html


def test_no_rows_at_all_still_gives_a_page_that_says_so() -> None:
    current = pa.table(sample(1))
    page = draw(pa.table(sample(0)), current.slice(0, 0), KINDS)
    assert set(page.omitted) == set(KINDS)
    assert "no usable value in the 0 live rows" in page.html


def test_hostile_names_and_categories_stay_text() -> None:
    lone = "\udcff"  # a lone surrogate
    columns = {f"a{HOSTILE}": "categorical", "quote\"'`\n": "numeric", "x" * 500: "numeric", "x" * 501: "numeric"}
    table = pa.table(
        {
            f"a{HOSTILE}": RNG.choice([HOSTILE, "<img src=x onerror=alert(2)>", 'c"', "", "\u2028"], ROWS),
            "quote\"'`\n": RNG.random(ROWS),
            "x" * 500: RNG.random(ROWS),
            "x" * 501: RNG.random(ROWS),
        }
    )
    page = draw(table, table, columns)
    assert page.omitted == {}
    assert "<script>alert" not in page.html
    assert "<img" not in page.html
    assert "\\\\u003c/script\\\\u003e" in page.html
    assert harmless(lone) == "\\udcff"


def test_names_that_become_alike_are_kept_apart() -> None:
    table = pa.table({"a<": RNG.random(ROWS), "a\\u003c": RNG.random(ROWS)})
    page = draw(table, table, dict.fromkeys(table.column_names, "numeric"))
    assert page.omitted == {}
    assert page.html.count("Drift in column 'a") == 2


def test_a_hundred_thousand_categories_are_shown_in_part() -> None:
    many = pa.table({"user": [f"u{i}" for i in range(100_000)], "x": RNG.random(100_000)})
    page = draw(many, many.slice(50_000), {"user": "categorical", "x": "numeric"})
    assert page.omitted == {}
    assert page.notes == {"user": "the 50 most frequent of 100,000 categories are shown, the others together"}
    assert "(99,950 others)" in page.html


def test_a_column_that_evidently_cannot_draw_loses_only_itself() -> None:
    reference, current = sample(0), sample(1)
    reference["extreme"] = current["extreme"] = RNG.choice([-1.7e308, 0, 1.7e308], ROWS)
    page = draw(pa.table(reference), pa.table(current), KINDS | {"extreme": "numeric"})
    assert page.omitted == {"extreme": "Evidently could not draw it"}
    assert "Drift in column 'distance'" in page.html
