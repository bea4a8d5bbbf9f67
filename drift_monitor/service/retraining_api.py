"""The API of retrainings: people decide, pipelines report back, MLflow tells which model is live."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeVar
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drift_monitor.config.loop import Retrain
from drift_monitor.config.models import Config
from drift_monitor.core.retraining import Event, Retraining, RetrainingError, State
from drift_monitor.core.types import Finite
from drift_monitor.service.exchange import Request, Response, as_json
from drift_monitor.service.store import Store

MOST = 1000  # retrainings that are listed at once
TOLERANCE = 300  # seconds that a signature may be old
_MLFLOW = "/mlflow"

Handler = Callable[..., Response]
_B = TypeVar("_B", bound=BaseModel)
_Text = Annotated[str, Field(max_length=2000)]


class Actor(Protocol):
    """What this part of the API asks of the daemon."""

    store: Store
    config: Config

    def move(self, name: str, event: Event, **news: object) -> Retraining:
        """Apply an event to a retraining."""

    def begin(self, monitor: str, by: str) -> Retraining:
        """Ask for a retraining by hand."""


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Report(_Body):
    """What a pipeline says of a retraining.

    Attributes:
        state: what happened.
        version: of the new model; with `succeeded` and `live`.
        metrics: of the new model, by name.
        training: absolute path of the file that it was trained on, on the daemon's machine.
        message: for people.
    """

    state: Literal["started", "failed", "succeeded", "live"]
    version: Annotated[str, Field(max_length=200)] = ""
    metrics: Annotated[dict[Annotated[str, Field(max_length=200)], Finite], Field(max_length=100)] = {}
    training: _Text = ""
    message: _Text = ""


class Decision(_Body):
    """Who decides, and why."""

    by: Annotated[str, Field(min_length=1, max_length=200)]
    note: _Text = ""


class _Data(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str
    version: str = ""
    alias: str = ""
    tags: dict[str, str] | None = None


class _Registry(BaseModel):
    """An event of MLflow's model registry."""

    model_config = ConfigDict(extra="ignore")
    entity: str
    action: str
    data: _Data


class RetrainingApi:
    """Answers what is asked about retrainings.

    Args:
        daemon: who acts.
    """

    def __init__(self, daemon: Actor) -> None:
        self._daemon = daemon
        name = r"([0-9a-f]{4,32})"
        self.routes: tuple[tuple[str, dict[str, Handler]], ...] = (
            (r"/api/v1/retrainings", {"GET": self._list}),
            (rf"/api/v1/retrainings/{name}", {"GET": self._one, "POST": self._report}),
            (rf"/api/v1/retrainings/{name}/(approve|reject)", {"POST": self._decide}),
            (rf"/retrainings/{name}/(weights|training)\.parquet", {"GET": self._file}),
            (r"/api/v1/monitors/([^/]+)/retrain", {"POST": self._begin}),
            (rf"/api/v1/monitors/([^/]+){_MLFLOW}", {"POST": self._mlflow}),
        )

    def is_signed(self, request: Request) -> bool:
        """Whether a request is one of MLflow's that proves itself; such a one needs no token."""
        start, end = "/api/v1/monitors/", _MLFLOW
        if request.method != "POST" or not (request.path.startswith(start) and request.path.endswith(end)):
            return False
        retrain = self._section(request.path[len(start) : -len(end)])
        return retrain is not None and _proves(request, retrain)

    def _section(self, monitor: str) -> Retrain | None:
        found = self._daemon.config.monitors.get(monitor)
        return None if found is None else found.retrain

    def _list(self, request: Request) -> Response:
        monitor = parse_qs(request.query).get("monitor", [None])[0]
        found = self._daemon.store.retrainings.newest(monitor, MOST)
        return as_json({"retrainings": [r.model_dump(mode="json") for r in found]})

    def _one(self, _request: Request, name: str) -> Response:
        try:
            return _shown(self._daemon.store.retrainings.find(name))
        except RetrainingError as error:
            return as_json({"error": str(error)}, HTTPStatus.NOT_FOUND)

    def _report(self, request: Request, name: str) -> Response:
        report = _read(Report, request)
        if isinstance(report, Response):
            return report
        return self._moved(
            name,
            Event(report.state),
            model_version=report.version or None,
            model_metrics=report.metrics or None,
            trained_on=report.training or None,
            note=report.message or None,
        )

    def _decide(self, request: Request, name: str, verb: str) -> Response:
        decision = _read(Decision, request)
        if isinstance(decision, Response):
            return decision
        event = Event.APPROVE if verb == "approve" else Event.REJECT
        return self._moved(name, event, decided_by=decision.by, note=decision.note or None)

    def _begin(self, request: Request, monitor: str) -> Response:
        decision = _read(Decision, request)
        if isinstance(decision, Response):
            return decision
        try:
            return _shown(self._daemon.begin(monitor, decision.by), HTTPStatus.CREATED)
        except RetrainingError as error:
            return as_json({"error": str(error)}, HTTPStatus.CONFLICT)

    def _moved(self, name: str, event: Event, **news: object) -> Response:
        try:
            found = self._daemon.store.retrainings.find(name)
        except RetrainingError as error:
            return as_json({"error": str(error)}, HTTPStatus.NOT_FOUND)
        try:
            return _shown(self._daemon.move(found.id, event, **news))
        except RetrainingError as error:
            return as_json({"error": str(error), "state": found.state.value}, HTTPStatus.CONFLICT)

    def _file(self, _request: Request, name: str, what: str) -> Response:
        try:
            found = self._daemon.store.retrainings.find(name)
        except RetrainingError as error:
            return as_json({"error": str(error)}, HTTPStatus.NOT_FOUND)
        attached = found.weights if what == "weights" else found.training
        path = Path(attached.path) if attached is not None else None
        if path is None or not path.is_file():
            return as_json({"error": f"retraining {found.id[:8]} has no {what}"}, HTTPStatus.NOT_FOUND)
        headers = {"Content-Disposition": f'attachment; filename="{what}.parquet"'}
        return Response(b"", "application/vnd.apache.parquet", headers=headers, file=path)

    def _mlflow(self, request: Request, monitor: str) -> Response:
        retrain, model = self._section(monitor), self._daemon.config.monitors.get(monitor)
        if retrain is None or model is None or not _proves(request, retrain):
            return as_json(
                {"error": "set retrain.mlflow_secret_file, and sign with its secret within five minutes"},
                HTTPStatus.UNAUTHORIZED,
            )
        event = _read(_Registry, request)
        if isinstance(event, Response):
            return event
        data, what = event.data, (event.entity, event.action)
        ours = data.name == model.model.name
        if ours and what == ("model_version", "created"):
            return self._registered(monitor, data)
        if ours and what == ("model_version_alias", "created") and data.alias == retrain.mlflow_alias:
            return self._went_live(monitor, data.version)
        return as_json(
            {"ignored": f"only new versions of {model.model.name!r} and its alias {retrain.mlflow_alias!r} matter"}
        )

    def _registered(self, monitor: str, data: _Data) -> Response:
        """A new version belongs to the retraining that its tag names, or to the one that is out, if it is one."""
        out = [
            r
            for r in self._daemon.store.retrainings.newest(monitor, MOST)
            if r.state in {State.APPROVED, State.SENT, State.RUNNING}
        ]
        tag = (data.tags or {}).get("drift_monitor.retraining")
        found = [r for r in out if tag is None or r.id == tag]
        if len(found) != 1:
            return as_json({"ignored": f"version {data.version} belongs to no retraining that is under way"})
        return self._moved(found[0].id, Event.SUCCEEDED, model_version=data.version)

    def _went_live(self, monitor: str, version: str) -> Response:
        known = self._daemon.store.retrainings.newest(monitor, MOST)
        found = next((r for r in known if r.model_version == version and r.state is State.TRAINED), None)
        if found is None:
            return as_json({"ignored": f"version {version} is of no retraining that waits to go live"})
        return self._moved(found.id, Event.LIVE, model_version=version)


def _proves(request: Request, retrain: Retrain) -> bool:
    """Whether MLflow signed the request: HMAC-SHA256(secret, delivery id.timestamp.body), lately."""
    if retrain.mlflow_secret_file is None:
        return False
    sent = request.headers.get("x-mlflow-timestamp", "")
    if not (sent.isascii() and sent.isdigit() and len(sent) < 16 and abs(time.time() - int(sent)) <= TOLERANCE):
        return False
    try:
        secret = retrain.mlflow_secret_file.read_bytes().strip()
    except OSError:
        return False
    if not secret:
        return False
    ident = request.headers.get("x-mlflow-delivery-id", "")
    signed = f"{ident}.{sent}.".encode("utf-8", "replace") + request.body
    expected = "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode("ascii")
    given = request.headers.get("x-mlflow-signature", "")
    return any(hmac.compare_digest(each.encode(), expected.encode()) for each in given.split())


def _read(kind: type[_B], request: Request) -> _B | Response:
    """The body, or the answer that says which field of it is wrong."""
    try:
        return kind.model_validate_json(request.body)
    except ValidationError as error:
        problems = [
            {"field": ".".join(str(part) for part in each["loc"]), "problem": each["msg"]}
            for each in error.errors(include_url=False, include_input=False, include_context=False)[:20]
        ]
        return as_json({"error": "the body cannot be used", "problems": problems}, HTTPStatus.UNPROCESSABLE_ENTITY)


def _shown(retraining: Retraining, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return as_json(retraining.model_dump(mode="json"), status)
