"""Values of an event stay what they are, and stay in their place, whatever they are."""

from __future__ import annotations

import json
import string
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_monitor.receivers.placeholders import NOTHING, PlaceholderError, parse, render
from drift_monitor.receivers.prepare import event_values, prepare
from drift_monitor.receivers.template import Request

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=()), max_size=30)


@given(text=NAMES, number=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
@settings(max_examples=100)
def test_whatever_an_event_says_a_body_carries_it_unchanged(text: str, number: float) -> None:

    data = {"text": text, "number": number, "list": [text, {text: number}]}
    template = {"whole": "${data}", "one": "${data.number}", "inside": "<${data.text}>", "first": "${data.list.0}"}
    filled = json.loads(json.dumps(render(template, {"data": data})))
    assert filled == {"whole": data, "one": number, "inside": f"<{text}>", "first": text}


@given(value=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
@settings(max_examples=200)
def test_whatever_a_value_is_it_stays_in_its_place_of_a_request(value: str) -> None:

    step = Request(path="/a/${v}/b", query={"q": "${v}"}, headers={"X-Name": "n ${v}"}, form={"f": "${v}"})
    if value in (".", ".."):
        with pytest.raises(PlaceholderError, match="cannot be a part of a path"):
            prepare(step, {"v": value}, ())
        return
    prepared = prepare(step, {"v": value}, ())
    assert set(prepared.path) <= {*string.ascii_letters, *string.digits, *"/%-._~"}
    assert [unquote(part) for part in prepared.path.split("/")] == ["", "a", value, "b"]
    assert parse_qs(urlsplit(f"?{prepared.query}").query, keep_blank_values=True) == {"q": [value]}
    assert parse_qs((prepared.body or b"").decode("ascii"), keep_blank_values=True) == {"f": [value]}
    assert prepared.headers["X-Name"].isascii()
    assert prepared.headers["X-Name"].isprintable()
    assert unquote(prepared.headers["X-Name"]) == f"n {value}"


def test_nothing_in_a_value_is_read_as_a_placeholder() -> None:

    assert render({"a": "${x}", "b": "-${x}-"}, {"x": "${secret}", "secret": "s"}) == {
        "a": "${secret}",
        "b": "-${secret}-",
    }


VALUES = {"a": {"b": 1, "n": None, "list": [{"c": "x"}]}, "text": "long enough", "flag": True, "other": "second"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("${a.b}", 1),
        ("${a.n}", None),
        ("${a.list.0.c}", "x"),
        ("${ a.b }", 1),
        ("n${a.b}", "n1"),
        ("${flag}", True),
        ("-${flag}-", "-true-"),
        ("-${a.list}-", '-[{"c":"x"}]-'),
        ("${a.none or other}", "second"),
        ("${a.n or other}", "second"),
        ("${a.b or other}", 1),
        ("${text|cut 4}", "long"),
        ("${a.b|text}", "1"),
        ("${a|pairs Name Value}", [{"Name": "b", "Value": 1}, {"Name": "n", "Value": None},
                                   {"Name": "list", "Value": [{"c": "x"}]}]),
        ("${text|map long*=l *=other}", "l"),
        ("${text|map short*=s}", "long enough"),
        ("${text|cut 4|map long=l}", "l"),
        ("<${a.none?}>", "<>"),
        ("<${a.n?}>", "<>"),
        ("$${a.b} costs $5", "${a.b} costs $5"),
        ({"kept": "${a.b}", "gone": "${a.none?}", "gone too": "${a.n?|text}"}, {"kept": 1}),
        (["${a.none?}", "${a.b}"], [1]),
        ({"${a.b}": "names of keys are left alone"}, {"${a.b}": "names of keys are left alone"}),
        ({"n": None, "f": 1.5, "deep": [{"t": "${a.b}"}]}, {"n": None, "f": 1.5, "deep": [{"t": 1}]}),
    ],
)  # fmt: skip
def test_what_a_placeholder_becomes(template: object, expected: object) -> None:
    assert render(template, VALUES) == expected


def test_an_optional_placeholder_without_a_value_is_nothing() -> None:
    assert render("${a.none?}", VALUES) is NOTHING
    assert render("${a.none or a.n?|cut 3}", VALUES) is NOTHING


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("${a.none}", "there is no a.none: write `a.none?` if that is no mistake"),
        ("${a.b.c}", "there is no a.b.c"),
        ("${a.list.1.c}", "there is no a.list.1.c"),
        ("${a.none or a.no}", "there is no a.none or a.no"),
        ("x${a.n}", "is null, which is no text"),
        ("${text|pairs Name Value}", "`pairs` takes a mapping, got str"),
        ("${a.b", "`${` without its `}`"),
        ("${}", "`${}` is not a placeholder"),
        ("${a b}", "is not a placeholder"),
        ("${a.b|upper}", "unknown filter 'upper' (known: text, cut, pairs, map)"),
        ("${a.b|}", "unknown filter ''"),
        ("${a.b|cut many}", "the filter is written `cut CHARACTERS`"),
        ("${a.b|map x}", "the filter is written `map PATTERN=TEXT ...`"),
    ],
)
def test_what_is_wrong_with_a_placeholder(template: str, said: str) -> None:
    with pytest.raises(PlaceholderError) as caught:
        render({"here": ["", template]}, VALUES)
    assert said in str(caught.value)
    assert caught.value.at == ("here", 1)


def test_a_time_ahead() -> None:
    values = event_values({"id": "e"}, datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert render("${now} ${in.30m} ${in.365d}", values) == (
        "2026-03-01T12:00:00Z 2026-03-01T12:30:00Z 2027-03-01T12:00:00Z"
    )
    with pytest.raises(PlaceholderError, match=r"there is no in\.soon"):
        render("${in.soon}", values)


def test_a_form_of_anything_but_a_mapping_is_refused() -> None:
    with pytest.raises(PlaceholderError, match="a form is a mapping"):
        prepare(Request(form="${v}"), {"v": ["a"]}, ("steps", 0))


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_a_value_that_would_change_a_path_is_refused(value: str) -> None:
    with pytest.raises(PlaceholderError, match="part of a path"):
        prepare(Request(path="/job/${v}/build"), {"v": value}, ("steps", 0))


def test_many_open_braces_do_not_take_for_ever() -> None:
    with pytest.raises(PlaceholderError):
        parse("${" * 100_000)
    assert len(parse("${a}" * 10_000)) == 10_000
