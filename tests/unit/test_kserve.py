"""KServe's requests and responses, joined by their id."""

import json
import time
from datetime import timedelta

import pytest

from drift_monitor.config.intake import PushSource
from drift_monitor.config.models import Monitor
from drift_monitor.intake import taking as module
from drift_monitor.intake.kserve import BATCHED, STRUCTURED, Event, inputs_of, outputs_of, read_events
from drift_monitor.intake.layout import LiveColumn
from drift_monitor.intake.refused import RefusedError
from drift_monitor.intake.taking import FullError, Taking
from drift_monitor.sources.spool import open_spool

TIME = "2026-03-01T00:00:00Z"
TYPE = "org.kubeflow.serving.inference."
COLUMNS = [
    LiveColumn(name="x", kind="numeric", feature=True),
    LiveColumn(name="c", kind="categorical", feature=True),
    LiveColumn(name="p", kind="numeric"),
    LiveColumn(name="id", kind="categorical"),
]


def monitor(folder, *, prediction="p", **source):
    return Monitor.model_validate(
        {
            "reference": "r",
            "source": {"type": "push", "timestamp": "t", "spool": str(folder / "s"), **source},
            "schedule": {"every": "1h"},
            "columns": {"prediction": prediction, "id": "id"},
        },
        strict=False,
    )


def taking(folder, **settings):
    return Taking(monitor(folder, **settings), COLUMNS)


def event(part, identifier, data, **attributes):
    return {"specversion": "1.0", "id": identifier, "source": "s", "type": TYPE + part, "data": data, **attributes}


def send(taking, *events, key=None):
    return taking.take(BATCHED, {}, key, json.dumps(events).encode())


def ask(*instances, identifier="1", time=TIME):
    return event("request", identifier, {"instances": list(instances)}, time=time)


def answer(*predictions, identifier="1"):
    return event("response", identifier, {"predictions": list(predictions)})


def rows(taking):
    taking.spool.close()
    source = open_spool(PushSource(type="push", timestamp="t", spool=taking.spool.folder), {})
    columns = ["x", "c", "p", "id"]
    return [
        r for s in source.splits(None) for b in source.batches(s, columns) for r in b.select(columns).to_pylist()
    ]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_request_and_its_response_are_a_row_whichever_comes_first(tmp_path, order):
    halves = [ask([1.5, "a"], identifier="e"), answer(0.25, identifier="e")]
    taker = taking(tmp_path)
    assert send(taker, halves[order[0]]) | {"id": ""} == {"rows": 0, "id": "", "waiting": 1}
    told = send(taker, halves[order[1]])
    assert (told["rows"], told["waiting"], told["events"]) == (1, 0, ["e"])
    assert rows(taker) == [{"x": 1.5, "c": "a", "p": 0.25, "id": "e"}]


def test_both_halves_in_one_batch(tmp_path):
    taker = taking(tmp_path)
    assert send(taker, ask([1.0, "a"]), answer(0.5), ask([2.0, "b"], identifier="2"))["rows"] == 1
    assert list(taker.spool.waiting) == ["2"]


def test_instances_may_be_objects_and_predictions_lists_of_one(tmp_path):
    taker = taking(tmp_path)
    send(taker, ask({"c": "b", "x": 2}, {"x": 3, "id": "own"}), answer([0.5], {"p": 0.75}))
    assert rows(taker) == [
        {"x": 2.0, "c": "b", "p": 0.5, "id": "1-0"},
        {"x": 3.0, "c": None, "p": 0.75, "id": "own"},
    ]


def test_the_time_of_a_row_is_its_own_or_that_of_its_request(tmp_path):
    taker = taking(tmp_path)
    send(taker, ask({"x": 1, "t": "2026-02-01T00:00:00Z"}, {"x": 2}), answer(0, 0))
    taker.spool.close()
    source = open_spool(PushSource(type="push", timestamp="t", spool=taker.spool.folder), {})
    found = [t for s in source.splits(None) for b in source.batches(s, ["t"]) for t in b.column("t").to_pylist()]
    assert [f"{t:%Y-%m-%d}" for t in found] == ["2026-02-01", "2026-03-01"]


def test_v2_tensors_by_name_and_by_position():
    named = {
        "inputs": [
            {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]},
            {"name": "c", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]},
        ]
    }
    expected = [{"x": 1.0, "c": "a"}, {"x": 2.0, "c": "b"}]
    assert inputs_of(named, ("x", "c")) == expected
    matrix = {"inputs": [{"name": "in", "shape": [2, 2], "datatype": "FP64", "data": [1.0, "a", 2.0, "b"]}]}
    assert inputs_of(matrix, ("x", "c")) == expected
    nested = {"inputs": [{"name": "in", "shape": [2, 2], "datatype": "FP64", "data": [[1.0, "a"], [2.0, "b"]]}]}
    assert inputs_of(nested, ("x", "c")) == expected
    outputs = {
        "outputs": [{"name": "other", "shape": [2], "data": [9, 9]}, {"name": "p", "shape": [2], "data": [1, 0]}]
    }
    assert outputs_of(outputs, "p") == [{"p": 1}, {"p": 0}]
    assert outputs_of({"outputs": outputs["outputs"][:1]}, "p") == [{"p": 9}, {"p": 9}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "neither `instances`"),
        ({"instances": [[1, 2, 3]]}, "3 values, but 2 are known by position"),
        ({"inputs": [{"name": "x", "shape": [3], "data": [1]}]}, "a shape of 3 values, but 1 are there"),
        ({"inputs": [{"name": "x", "shape": [1]}]}, "binary tensor data"),
        ({"inputs": [{"name": "x", "shape": [-1], "data": []}]}, "whole numbers"),
        ({"inputs": [7]}, "objects with a name"),
        (
            {"inputs": [{"name": "x", "shape": [1], "data": [1]}, {"name": "c", "shape": [2], "data": [1, 2]}]},
            "of 1 and of 2 rows",
        ),
    ],
)
def test_inputs_that_cannot_be_read(data, said):
    with pytest.raises(RefusedError, match=said):
        inputs_of(data, ("x", "c"))


def test_vectors_of_no_numbers_are_refused():
    inputs = [{"name": "x", "shape": [2], "data": [1, 2]}, {"name": "v", "shape": [2, 0], "data": []}]
    with pytest.raises(RefusedError, match="this shape has none"):
        inputs_of({"inputs": inputs}, ("x",), {"v"})


def test_the_three_modes_of_cloudevents():
    whole = ask([1, "a"])
    attributes = {f"ce-{name}": value for name, value in whole.items() if name != "data"}
    expected = [Event("1", "request", TIME, whole["data"])]
    assert read_events(STRUCTURED, {}, json.dumps(whole).encode()) == expected
    assert read_events(BATCHED, {}, json.dumps([whole]).encode()) == expected
    assert read_events("application/json", attributes, json.dumps(whole["data"]).encode()) == expected


@pytest.mark.parametrize(
    ("changed", "field"),
    [({"specversion": "0.3"}, "specversion"), ({"id": ""}, "id"), ({"id": 7}, "id"), ({"type": "other"}, "type"),
     ({"time": 5}, "time"), ({"data": "x"}, "data")],
)  # fmt: skip
def test_what_is_no_event_is_refused(changed, field):
    with pytest.raises(RefusedError) as caught:
        read_events(BATCHED, {}, json.dumps([ask([1, "a"]), ask([1, "a"]) | changed]).encode())
    assert (caught.value.row, caught.value.field) == (2, field)


def test_halves_that_do_not_fit_together_are_refused(tmp_path):
    taker = taking(tmp_path)
    send(taker, ask([1, "a"], [2, "b"]))
    with pytest.raises(RefusedError, match="2 rows were asked about, and 1 answers came"):
        send(taker, answer(0.5))
    assert taker.report()["refused"] == {"unfit": 1}


def test_an_event_that_is_said_again_is_counted_once(tmp_path):
    taker = taking(tmp_path)
    for _ in range(2):
        send(taker, ask([1, "a"]))
    assert [send(taker, answer(0.5))["rows"] for _ in range(2)] == [1, 0]
    assert send(taker, ask([1, "a"]))["waiting"] == 0
    assert len(rows(taker)) == 1


def test_what_waits_and_what_was_joined_is_known_after_a_restart(tmp_path):
    taker = taking(tmp_path)
    send(taker, ask([1, "a"], identifier="1"), answer(0.5, identifier="1"), ask([2, "b"], identifier="2"))
    taker.spool.close()
    again = taking(tmp_path)
    assert send(again, answer(0.5, identifier="1"), ask([1, "a"], identifier="1"))["rows"] == 0
    assert send(again, answer(0.7, identifier="2"))["rows"] == 1
    assert [row["p"] for row in rows(again)] == [0.5, 0.7]


def test_half_an_event_is_given_up_after_its_time(tmp_path, monkeypatch):
    taker = taking(tmp_path, join_within=timedelta(minutes=1))
    send(taker, ask([1, "a"]))
    taker.expire()
    assert taker.report()["waiting"] == 1
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 61)
    taker.expire()
    assert taker.report()["refused"] == {"unjoined": 1}
    assert send(taker, answer(0.5))["rows"] == 0  # whose request is gone


def test_only_so_much_may_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 100)
    taker = taking(tmp_path)
    send(taker, ask([1, "a"]))
    with pytest.raises(FullError):
        send(taker, ask([1, "a" * 200], identifier="2"))
    assert send(taker, answer(0.5))["rows"] == 1


def test_without_a_prediction_a_request_is_a_row(tmp_path):
    taker = taking(tmp_path, prediction=None)
    assert send(taker, ask([1, "a"]), answer(0.5))["rows"] == 1


def test_the_names_of_positions_can_be_configured(tmp_path):
    taker = taking(tmp_path, positions=("c", "x"))
    send(taker, ask(["a", 1]), answer(0.5))
    assert rows(taker) == [{"x": 1.0, "c": "a", "p": 0.5, "id": "1"}]


# -- keys of requests ------------------------------------------------------------------------------


def test_a_request_with_a_key_is_taken_once(tmp_path):
    taker = taking(tmp_path)
    body = json.dumps({"t": TIME, "x": 1}).encode()
    first = taker.take("application/jsonl", {}, "k", body)
    assert first["rows"] == 1
    assert taker.take("application/jsonl", {}, "k", body) == {"rows": 1, "repeated": True}
    assert taker.take("application/jsonl", {}, "other", body)["rows"] == 1
    with pytest.raises(RefusedError, match="other rows were sent with this key"):
        taker.take("application/jsonl", {}, "k", body + b"\n" + body)
    for key in ("", "k" * 201):
        with pytest.raises(RefusedError, match="1 to 200"):
            taker.take("application/jsonl", {}, key, body)
    taker.spool.close()
    again = taking(tmp_path)
    assert again.take("application/jsonl", {}, "k", body)["repeated"]
    assert len(rows(again)) == 2


def test_a_batch_of_events_with_a_key_is_taken_once(tmp_path):
    taker = taking(tmp_path)
    send(taker, ask([1, "a"]), answer(0.5), key="k")
    assert send(taker, ask([1, "a"]), answer(0.5), key="k") == {"rows": 1, "repeated": True}


def test_a_refused_request_may_be_sent_right_with_the_same_key(tmp_path):
    taker = taking(tmp_path)
    with pytest.raises(RefusedError):
        taker.take("application/jsonl", {}, "k", b'{"x": 1}')
    assert taker.take("application/jsonl", {}, "k", json.dumps({"t": TIME}).encode())["rows"] == 1


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json", "text/csv"])
def test_another_type_is_refused_with_those_that_are_read(tmp_path, kind):
    with pytest.raises(RefusedError, match=r"application/vnd\.apache\.arrow\.stream") as caught:
        taking(tmp_path).take(kind, {}, None, b"{}")
    assert caught.value.status == 415
