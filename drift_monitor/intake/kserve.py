"""KServe's inference logger: CloudEvents with requests and responses -> rows.

Sources: CloudEvents 1.0.2, HTTP and JSON bindings; KServe's V1 protocol; Open Inference Protocol (V2), sections
"Inference Request JSON Object" and "Tensor Data".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal

from drift_monitor.intake.refused import RefusedError, TypeRefusedError, cut
from drift_monitor.intake.rows import MOST_ROWS, read_object

Part = Literal["request", "response"]
STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"
OTHER: Final[Mapping[Part, Part]] = {"request": "response", "response": "request"}
_LONGEST_ID: Final = 200
Record = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One half of an inference.

    Attributes:
        id: that both halves have.
        time: of the event, as it was sent; None without one.
        data: what KServe was asked, or answered.
    """

    id: str
    part: Part
    time: str | None
    data: dict[str, Any]


def read_events(kind: str, headers: Mapping[str, str], body: bytes) -> list[Event]:
    """The events of a request to us, in any of the three modes of CloudEvents.

    Args:
        kind: content type.
        headers: those that begin with `ce-`, in lower case.
        body: as it was sent.

    Raises:
        RefusedError: it holds none, or something else.
    """
    if kind == BATCHED:
        listed = read_object(b'{"events":' + body + b"}").get("events")
        if not isinstance(listed, list):
            raise RefusedError("a batch of CloudEvents is a JSON list")
        return [_event(each, number) for number, each in enumerate(listed, 1)]
    if kind == STRUCTURED:
        return [_event(read_object(body), 1)]
    attributes: dict[str, Any] = {name.removeprefix("ce-"): value for name, value in headers.items()}
    return [_event(attributes | {"data": read_object(body)}, 1)]


def _event(found: object, number: int) -> Event:
    if not isinstance(found, dict):
        raise RefusedError("this is no CloudEvent", number)
    identifier, kind, time, data = (found.get(name) for name in ("id", "type", "time", "data"))
    if found.get("specversion") != "1.0":
        raise RefusedError("CloudEvents 1.0 are read", number, "specversion", found.get("specversion"))
    if not isinstance(identifier, str) or not 0 < len(identifier) <= _LONGEST_ID:
        raise RefusedError(f"an id has 1 to {_LONGEST_ID} characters", number, "id", identifier)
    part: Part | None = next((p for p in OTHER if isinstance(kind, str) and kind.endswith(f"inference.{p}")), None)
    if part is None:
        raise RefusedError("the type ends in inference.request or inference.response", number, "type", kind)
    if time is not None and not isinstance(time, str):
        raise RefusedError("a time is text", number, "time", time)
    if not isinstance(data, dict):
        raise RefusedError("the data is no JSON object", number, "data", data)
    return Event(identifier, part, time, data)


def inputs_of(data: Mapping[str, Any], positions: Sequence[str], vectors: Collection[str] = ()) -> list[Record]:
    """The rows that a model was asked about: V1 `instances`, or V2 `inputs`.

    Args:
        data: of a request.
        positions: names of the values in a list without names.
        vectors: names of tensors that have a list of numbers for each row.

    Raises:
        RefusedError: it is neither, or a list has another number of values.
    """
    if isinstance(data.get("inputs"), list):
        return _rows(data["inputs"], "inputs", positions, vectors)
    instances = data.get("instances")
    if not isinstance(instances, list):
        raise RefusedError("the request has neither `instances` (V1) nor `inputs` (V2)")
    return [_named(value, number, positions) for number, value in enumerate(instances, 1)]


def outputs_of(data: Mapping[str, Any], prediction: str) -> list[Record]:
    """What the model answered, a row each: V1 `predictions`, or V2 `outputs`.

    Raises:
        RefusedError: it is neither, or a row has several values without names.
    """
    if isinstance(data.get("outputs"), list):
        outputs = data["outputs"]
        named = [each for each in outputs if isinstance(each, dict) and each.get("name") == prediction]
        return _rows((named or outputs)[:1], "outputs", (prediction,))
    predictions = data.get("predictions")
    if not isinstance(predictions, list):
        raise RefusedError("the response has neither `predictions` (V1) nor `outputs` (V2)")
    return [_named(value, number, (prediction,)) for number, value in enumerate(predictions, 1)]


def rows_of(
    request: Event,
    outputs: Sequence[Record] | None,
    layout_time: str,
    positions: Sequence[str],
    identifier: str | None,
    vectors: Collection[str] = (),
) -> list[Record]:
    """The rows of an inference.

    Args:
        request: the half with the inputs.
        outputs: of the other half; None if there is no prediction to be had.
        layout_time: the timestamp column, which gets the time of the request where the inputs have none.
        positions: names of the values in a list without names.
        identifier: the id column, which gets the event's id where the inputs have none, with `-0`, `-1`, ... for
            several rows.
        vectors: names of tensors that have a list of numbers for each row.

    Raises:
        RefusedError: the halves do not fit together.
    """
    rows = inputs_of(request.data, positions, vectors)
    if outputs is not None and len(outputs) != len(rows):
        raise RefusedError(
            f"{len(rows)} rows were asked about, and {len(outputs)} answers came", None, "id", request.id
        )
    if len(rows) > MOST_ROWS:
        raise RefusedError(f"an event has {MOST_ROWS:,} rows at most", None, "id", request.id)
    for number, row in enumerate(rows):
        row.setdefault(layout_time, request.time)
        if identifier is not None:
            row.setdefault(identifier, request.id if len(rows) == 1 else f"{request.id}-{number}")
        if outputs is not None:
            row.update(outputs[number])
    return rows


def _named(value: object, number: int, names: Sequence[str]) -> Record:
    if isinstance(value, dict):
        return dict(value)
    values = value if isinstance(value, list) else [value]
    if len(values) != len(names):
        raise RefusedError(
            f"a list of {len(values)} values, but {len(names)} are known by position "
            f"({', '.join(map(cut, names[:5]))}{', ...' if len(names) > 5 else ''}): set the source's `positions`",
            number,
        )
    return dict(zip(names, values, strict=True))


def _rows(
    tensors: Sequence[object], where: str, names: Sequence[str], vectors: Collection[str] = ()
) -> list[Record]:
    """The rows of tensors whose first dimension counts them."""
    columns: dict[str, list[Any]] = {}
    length: int | None = None
    for tensor in tensors:
        name, count, width, values = _tensor(tensor, where)
        if length not in (None, count):
            raise RefusedError(f"{where} of {length} and of {count} rows", None, name)
        length = count
        if name in vectors:
            if count and not width:
                raise RefusedError("a vector for each row has numbers, and this shape has none", None, name)
            columns[name] = [values[at : at + width] for at in range(0, count * width, width or 1)]
        elif width == 1 and (len(tensors) > 1 or len(names) != 1):
            columns[name] = values
        elif width != len(names):
            raise RefusedError(
                f"{width} values a row, but {len(names)} are known by position: set the source's `positions`",
                None,
                name,
            )
        else:
            columns |= {each: values[at::width] for at, each in enumerate(names)}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _tensor(tensor: object, where: str) -> tuple[str, int, int, list[Any]]:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise RefusedError(f"{where} are objects with a name, a shape and data")
    name, shape, data = tensor["name"], tensor.get("shape"), tensor.get("data")
    if not isinstance(data, list):
        raise TypeRefusedError("binary tensor data is not read: have it logged as JSON", None, name)
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n >= 0 for n in shape):
        raise RefusedError("a shape is a list of whole numbers", None, name, shape)
    while data and isinstance(data[0], list):  # data may be nested as the shape is
        data = [value for inner in data for value in (inner if isinstance(inner, list) else [inner])]
    count, width = shape[0], prod(shape[1:])
    if count * width != len(data):
        raise RefusedError(f"a shape of {count * width} values, but {len(data)} are there", None, name, shape)
    return name, count, width, data
