"""A retraining pipeline to start from: takes drift-monitor's requests, trains, compares, deploys, reports back.

`python pipeline.py first --help` trains the first model, `python pipeline.py serve --help` waits for requests.
What is yours to change is `learner`; the rest is how to do it without losing, repeating or overrating anything.

It stands alone: Python 3.11 with pandas, pyarrow and scikit-learn. Models classify rows as true or false.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import http.client
import json
import logging
import math
import os
import queue
import re
import shutil
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

log = logging.getLogger("pipeline")

REQUESTED: Final = "drift_monitor.retraining.requested"
PATH: Final = "/retrain"
TOLERANCE: Final = 300.0  # seconds that a signature may be old
LARGEST: Final = 64 * 1024  # bytes of an event; drift-monitor keeps them under 20 kB
HOLDOUT: Final = 0.2  # share of the refreshed set, its newest rows, that models are compared on
FEWEST: Final = 500  # rows that a comparison needs
PATIENCE: Final = 900.0  # seconds for which a daemon that does not answer is asked again
_ID: Final = re.compile(r"[0-9a-f]{32}")


class PipelineError(Exception):
    """A retraining that cannot be done; the message says why."""


class RefusedError(PipelineError):
    """The daemon understood, and does not want it."""


# -- models ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """What the columns mean; all others are features.

    Attributes:
        label: true or false; rows without one are not learnt from.
        id: of a row.
        time: event time.
        ignore: no features either.
    """

    label: str
    id: str
    time: str
    ignore: tuple[str, ...] = ()

    def features(self, rows: pd.DataFrame) -> list[str]:
        """The features among the columns of a table."""
        apart = {self.label, self.id, self.time, *self.ignore}
        return [name for name in rows.columns if name not in apart]


def learner(texts: Sequence[int]) -> Any:
    """What is trained: a scikit-learn classifier that takes missing values and `sample_weight`.

    Small trees, slowly: rows of one day have much in common, so there are fewer of them than it seems.

    Args:
        texts: positions of the categorical features, which come first.
    """
    return HistGradientBoostingClassifier(
        max_iter=100,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=200,
        categorical_features=list(texts),
        random_state=0,
    )


@dataclass(frozen=True)
class Model:
    """A model, and how its rows are read.

    Attributes:
        estimator: a fitted scikit-learn pipeline.
        features: that it was trained on.
    """

    estimator: Any
    features: tuple[str, ...]

    @classmethod
    def train(cls, rows: pd.DataFrame, columns: Columns, weights: NDArray[np.float64] | None = None) -> Model:
        """Train one.

        Args:
            rows: those without a label are left out.
            columns: what they mean.
            weights: of the rows, shape (len(rows),); all the same when None.

        Raises:
            PipelineError: there is nothing to tell apart.
        """
        known = rows[columns.label].notna().to_numpy()
        rows, weights = rows[known], None if weights is None else weights[known]
        truth = rows[columns.label].astype(bool)
        if truth.nunique() < 2:
            raise PipelineError(f"all {len(rows):,} labels in {columns.label!r} are the same: nothing to learn")
        names = columns.features(rows)
        texts = [name for name in names if not pd.api.types.is_numeric_dtype(rows[name])]
        encoder = OrdinalEncoder(
            handle_unknown="use_encoded_value",
            unknown_value=np.nan,  # a category that training did not have is missing
            encoded_missing_value=np.nan,
            max_categories=254,  # the trees' limit is 255
        )
        encode = make_column_transformer((encoder, texts), remainder="passthrough")
        estimator = make_pipeline(encode, learner(range(len(texts))))
        estimator.fit(rows[names], truth, **{f"{estimator.steps[-1][0]}__sample_weight": weights})
        return cls(estimator, tuple(names))

    def score(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Probability of a true label, shape (len(rows),)."""
        scores: NDArray[np.float64] = self.estimator.predict_proba(rows[list(self.features)])[:, 1]
        return scores

    def measure(self, rows: pd.DataFrame, columns: Columns) -> dict[str, float]:
        """How good it is on labelled rows: log loss (nats) and Brier score, smaller is better; AUC, larger is."""
        return measures(rows[columns.label].astype(bool).to_numpy(), self.score(rows))


def measures(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> dict[str, float]:
    """Log loss, Brier score and, where there are rows of both kinds, AUC.

    Args:
        truth: shape (n,), n > 0.
        scores: probabilities, shape (n,).
    """
    found = {
        "log_loss": log_loss(truth, scores, labels=[False, True]),
        "brier": brier_score_loss(truth, scores, pos_label=True),
    }
    if 0 < truth.sum() < len(truth):
        found["auc"] = roc_auc_score(truth, scores)
    return {name: float(value) for name, value in found.items()}


class Models:
    """Model files, a folder a version, and which of them is live.

    `live.json` is the one thing that the scoring side reads; it is replaced in one step.

    Args:
        folder: made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, version: str, name: str, model: Model) -> Path:
        """Write a model file of a version: scikit-learn's own classes only, so that any program can read it."""
        file = self.folder / version / f"{name}.joblib"
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".partial")
        joblib.dump({"estimator": model.estimator, "features": model.features}, temporary)
        temporary.replace(file)
        return file

    def has(self, version: str, name: str = "model") -> bool:
        """Whether there is such a model file."""
        return (self.folder / version / f"{name}.joblib").is_file()

    def load(self, version: str, name: str = "model") -> Model:
        """Read a model file back."""
        kept = joblib.load(self.folder / version / f"{name}.joblib")
        return Model(kept["estimator"], kept["features"])

    def deploy(self, version: str, *, rows: Path, trained_on: str) -> None:
        """Make a version the live one.

        Args:
            version: that was saved.
            rows: the file of its training rows, here.
            trained_on: the same file's path on the daemon's machine.
        """
        write(self.folder / "live.json", {"version": version, "rows": str(rows), "trained_on": trained_on})

    @property
    def live(self) -> dict[str, str]:
        """Version, rows, trained_on of the live model.

        Raises:
            PipelineError: there is none.
        """
        try:
            found: dict[str, str] = json.loads((self.folder / "live.json").read_bytes())
        except FileNotFoundError:
            raise PipelineError(f"no model is live in {self.folder}: begin with `pipeline.py first`") from None
        return found

    def live_model(self) -> Model:
        """What the scoring side scores with."""
        return self.load(self.live["version"])


def write(path: Path, content: object) -> None:
    """Write JSON so that a reader, or a machine that loses power, has the old file or the new one."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


# -- drift-monitor's side --------------------------------------------------------------------------


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    """Check a Standard Webhooks signature; the reason when it is not to be trusted, else None.

    Args:
        secrets: each `whsec_` and a key in base64; one of them has to fit.
        headers: names in lower case.
        body: the bytes as they came.
        now: seconds since 1970.
    """
    ident, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    is_time = stamp.isascii() and stamp.isdigit() and len(stamp) < 16
    if not (ident and is_time and abs(now - int(stamp)) <= TOLERANCE):
        return f"it has no id, or its time {stamp[:20]!r} is not within {TOLERANCE:g} s of now"
    signed = f"{ident}.{stamp}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    wanted = [b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in keys]
    given = headers.get("webhook-signature", "").encode("utf-8", "replace").split()
    if any(hmac.compare_digest(one, other) for one in given for other in wanted):
        return None
    return "its signature is not of our secret"


def read_secrets(path: Path) -> list[str]:
    """The lines of a secret file: more than one while a secret is being changed.

    Raises:
        PipelineError: it has none that can be used.
    """
    secrets = path.read_text("ascii").split()
    try:
        keys = [base64.b64decode(secret.removeprefix("whsec_"), validate=True) for secret in secrets]
    except binascii.Error:
        keys = []
    if not keys or not all(keys):
        raise PipelineError(f"{path} must have a line `whsec_` and a key in base64")
    return secrets


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token, or a training set, to somewhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


class Daemon:
    """The API of the drift-monitor that sends the requests.

    Args:
        base: its URL. Events are signed, and still nothing is fetched from, or told to, any other place.
        token_file: with its bearer token, where it asks for one.
        patience: seconds for which it is asked again when it does not answer.
    """

    def __init__(self, base: str, token_file: Path | None = None, patience: float = PATIENCE) -> None:
        self._base, self._token_file, self._patience = base.rstrip("/"), token_file, patience
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))

    def report(self, url: str, state: str, *, patience: float | None = None, **more: object) -> None:
        """Tell how a retraining stands.

        Args:
            url: of the event's `report_back`.
            state: started, failed, succeeded or live.
            patience: for which the daemon is asked again; that of all requests when None.
            more: version, metrics, training, message.

        Raises:
            RefusedError: the retraining was given up meanwhile, or is another's.
            PipelineError: the daemon does not answer.
        """
        body = json.dumps({"state": state, **more}).encode()
        self._ask(url, body, patience).close()
        log.info("reported %s", state)

    def fetch(self, attached: Mapping[str, Any], target: Path) -> Path:
        """Download what goes with a retraining, and make sure that it is the file that the event tells of.

        Args:
            attached: `training` or `weights` of an event.
            target: where to put it.

        Raises:
            PipelineError: it cannot be had, or is another file.
        """
        partial = target.with_suffix(".partial")
        digest = hashlib.sha256()
        try:
            with self._ask(attached["url"]) as answer, partial.open("wb") as file:
                while block := answer.read(1 << 20):
                    digest.update(block)
                    file.write(block)
        except RefusedError as error:  # of the file, not of the retraining
            raise PipelineError(str(error)) from None
        if digest.hexdigest() != attached["sha256"]:
            partial.unlink()
            raise PipelineError(
                f"{attached['url']} has sha256 {digest.hexdigest()}, but the event says {attached['sha256']}"
            )
        partial.replace(target)
        log.info("fetched %s, %s rows, sha256 as told", target.name, f"{attached['rows']:,}")
        return target

    def _ask(self, url: str, body: bytes | None = None, patience: float | None = None) -> Any:
        if urlsplit(url)[:2] != urlsplit(self._base)[:2]:
            raise PipelineError(f"{url} is not at {self._base}, the drift-monitor that we work for")
        headers = {"X-Requested-By": "drift-monitor"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {self._token_file.read_text('ascii').strip()}"
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - its place was compared
        give_up, pause = time.monotonic() + (self._patience if patience is None else patience), 0.5
        while True:
            try:
                return self._opener.open(request, timeout=60)
            except urllib.error.HTTPError as error:
                said = error.read(LARGEST).decode("utf-8", "replace")
                if error.code < 500 and error.code not in {408, 429}:
                    raise RefusedError(f"{url} answered {error.code}: {said}") from None
                trouble = f"{error.code}: {said}"
            except (OSError, http.client.HTTPException) as error:
                trouble = str(error)
            if time.monotonic() + pause > give_up:
                raise PipelineError(f"{url} does not answer: {trouble}")
            time.sleep(pause)
            pause = min(2 * pause, 60)


class Inbox:
    """The requests that came, on disk before they are acknowledged: once they are, nobody sends them again.

    Args:
        folder: made if need be; `waiting/` in it has what is to be done, `done/` what was.
    """

    def __init__(self, folder: Path) -> None:
        self._waiting, self._done = folder / "waiting", folder / "done"
        self._lock = threading.Lock()
        for each in (self._waiting, self._done):
            each.mkdir(parents=True, exist_ok=True)

    def put(self, ident: str, event: object) -> Path | None:
        """Keep a request.

        Args:
            ident: of the delivery; a retry has the same.
            event: the body.

        Returns:
            Its file; None when it came before.
        """
        name = f"{hashlib.sha256(ident.encode()).hexdigest()}.json"  # an id may hold anything
        with self._lock:
            if (self._done / name).exists() or (self._waiting / name).exists():
                return None
            write(self._waiting / name, event)
        return self._waiting / name

    def waiting(self) -> list[Path]:
        """What is to be done, oldest first."""
        return sorted(self._waiting.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)

    def done(self, file: Path) -> None:
        """It is done, well or not."""
        with self._lock:
            file.replace(self._done / file.name)


# -- the work --------------------------------------------------------------------------------------


class Pipeline:
    """Works on one request after another.

    Args:
        models: what is live, and where new versions go.
        daemon: that is told.
        columns: of the rows.
        holdout: share of the refreshed set that models are compared on.
    """

    def __init__(self, models: Models, daemon: Daemon, columns: Columns, holdout: float = HOLDOUT) -> None:
        self._models, self._daemon, self._columns, self._holdout = models, daemon, columns, holdout

    def work_on(self, event: Mapping[str, Any]) -> None:
        """Do what a request asks for and report how it went. Does not raise for what can go wrong with it."""
        data = event["data"]
        ident, url = str(data["retraining"]["id"]), str(data["report_back"]["url"])
        if data["retraining"].get("mode") == "test" or not _ID.fullmatch(ident):
            log.info("a test, or no retraining of drift-monitor's: nothing is trained")
            return
        try:
            if self._is_live(ident):  # and then this process died
                self._report_live(url)
                return
            self._daemon.report(url, "started")
            self._retrain(ident, url, data)
        except RefusedError as error:
            log.warning("given up, since drift-monitor does not want it: %s", error)
        except Exception as error:  # whatever it is, it must not be silence
            why = str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
            log.error("failed: %s", why, exc_info=not isinstance(error, PipelineError))  # noqa: TRY400
            try:
                self._daemon.report(url, "failed", message=why[:2000])
            except PipelineError as other:
                log.error("and that could not be reported: %s", other)  # noqa: TRY400

    def _is_live(self, ident: str) -> bool:
        return self._models.live["version"].endswith(f"-{ident[:8]}")

    def _report_live(self, url: str) -> None:
        """However long it takes: what is live is live, whoever knows of it."""
        live = self._models.live
        told = {"version": live["version"], "training": live["trained_on"]}
        self._daemon.report(url, "live", patience=math.inf, **told)

    def _retrain(self, ident: str, url: str, data: Mapping[str, Any]) -> None:
        """Train, compare, keep, deploy; the winner's figures are reported before it is deployed."""
        columns, live = self._columns, self._models.live
        work = self._models.folder / f".work-{ident[:8]}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        training = self._refreshed(data, work)
        refreshed, old = read_rows(training, columns), read_rows(Path(live["rows"]), columns)
        fit, held_out = split(refreshed, old, columns, self._holdout)
        since = f"{held_out[columns.time].min():%Y-%m-%d %H:%M}"
        log.info("%s rows to train on; held out: %s, from %s on", f"{len(fit):,}", f"{len(held_out):,}", since)
        models = {"champion": self._models.live_model(), "refreshed": Model.train(fit, columns)}
        if data["weights"] is None:
            log.info("no weights were offered")
        else:
            models["weighted"] = self._weighted(data["weights"], old, work)
        figures = {name: model.measure(held_out, columns) for name, model in models.items()}
        for name, values in figures.items():
            log.info("%s: %s", name, ", ".join(f"{metric} {value:.4f}" for metric, value in values.items()))
        best = winner(figures, weights=data["weights"] is not None and data["weights"]["adopt"])
        if (
            best == "refreshed"
        ):  # what was held out is the newest of all: the model that goes live learns from it too
            models[best] = Model.train(refreshed, columns)
        version = f"{refreshed[columns.time].max():%Y-%m-%d}-{ident[:8]}"
        log.info("%s wins: version %s", best, version)
        for name in models.keys() - {"champion"}:
            self._models.save(version, "model" if name == best else name, models[name])
        rows, trained_on = Path(live["rows"]), live["trained_on"]
        if best == "refreshed":
            rows = training.replace(self._models.folder / version / training.name)
            trained_on = data["training"]["path"]
        shutil.rmtree(work)
        told = {f"{name}_{metric}": value for name, each in figures.items() for metric, value in each.items()}
        self._daemon.report(url, "succeeded", version=version, metrics=figures[best] | told)
        self._models.deploy(version, rows=rows, trained_on=trained_on)
        log.info("deployed %s", version)
        self._report_live(url)

    def _refreshed(self, data: Mapping[str, Any], work: Path) -> Path:
        """The refreshed training set.

        Raises:
            PipelineError: there is none, or it cannot be had.
        """
        if data["training"] is None:
            why = data["retraining"].get("note") or "refresh.enabled is not set"
            raise PipelineError(f"without a refreshed training set no live labels are there to compare on: {why}")
        return self._daemon.fetch(data["training"], work / "training.parquet")

    def _weighted(self, offered: Mapping[str, Any], old: pd.DataFrame, work: Path) -> Model:
        """A model of the rows that the live one was trained on, with the weights that are for them.

        Raises:
            PipelineError: they are for other rows, or cannot be had.
        """
        advice = "use them" if offered["adopt"] else "do not use them"
        log.info("drift-monitor says of its weights: %s: %s", advice, offered["why"])
        weights = pd.read_parquet(self._daemon.fetch(offered, work / "weights.parquet"))
        if len(weights) != len(old):
            raise PipelineError(
                f"the weights are for {len(weights):,} rows, but the live model was trained on {len(old):,}: is "
                "`training` of the monitor another file?"
            )
        names = weights["row_id"]
        numbered = pd.api.types.is_integer_dtype(names) and (names.to_numpy() == np.arange(len(old))).all()
        if not numbered and (names.to_numpy() != old[self._columns.id].to_numpy()).any():
            raise PipelineError("the weights are for rows with other ids than those of the live model")
        return Model.train(old, self._columns, weights["weight"].to_numpy(np.float64))


def winner(figures: Mapping[str, Mapping[str, float]], *, weights: bool) -> str:
    """The challenger with the smallest log loss, if that is smaller than the champion's.

    Args:
        figures: of each model, all on the same rows.
        weights: whether a model that was trained with weights may win: drift-monitor found that they help.

    Raises:
        PipelineError: the champion stays.
    """
    able = {
        n: each["log_loss"] for n, each in figures.items() if n == "refreshed" or (n == "weighted" and weights)
    }
    best, champion = min(able, key=lambda name: able[name]), figures["champion"]["log_loss"]
    if able[best] >= champion:
        raise PipelineError(
            f"no challenger is better on the newest rows: log loss {able[best]:.4f} ({best}), that of the live "
            f"model {champion:.4f}"
        )
    return best


def read_rows(path: Path, columns: Columns) -> pd.DataFrame:
    """Rows of a Parquet file.

    Raises:
        PipelineError: it lacks a column.
    """
    rows: pd.DataFrame = pq.read_table(path).to_pandas()
    missing = [name for name in (columns.label, columns.id, columns.time) if name not in rows]
    if missing:
        raise PipelineError(f"{path} has no column {', '.join(missing)}")
    return rows


def split(
    refreshed: pd.DataFrame, old: pd.DataFrame, columns: Columns, holdout: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to train challengers on, and newer ones, with a label, to compare all models on.

    By time, not by chance: rows of one day resemble each other, so rows held out at random flatter a model that
    has seen their neighbours. None of those held out is as old as what the live model was trained on.

    Raises:
        PipelineError: too few rows are left on a side.
    """
    times = refreshed[columns.time]
    cut = max(times.quantile(1 - holdout), old[columns.time].max())
    newer = times > cut
    held_out = refreshed[newer & refreshed[columns.label].notna()]
    if len(held_out) < FEWEST or (~newer).sum() < FEWEST:
        raise PipelineError(
            f"{len(held_out):,} labelled rows are newer than {cut} and {(~newer).sum():,} are not: to train and "
            f"to compare models takes {FEWEST} of each"
        )
    return refreshed[~newer], held_out


# -- the service -----------------------------------------------------------------------------------


class Service:
    """Listens for requests, and has them worked on one after another in a thread of its own.

    Args:
        address: host and port; port 0 takes a free one.
        secret_file: of the webhook's signatures.
        inbox: where requests are kept.
        work_on: what is done with one.
    """

    def __init__(
        self,
        address: tuple[str, int],
        secret_file: Path,
        inbox: Inbox,
        work_on: Callable[[Mapping[str, Any]], None],
    ) -> None:
        read_secrets(secret_file)
        self._secret_file, self._inbox, self._work_on = secret_file, inbox, work_on
        self._queue: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        for file in inbox.waiting():  # acknowledged before this process began
            self._queue.put(file)
        service = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_POST(self) -> None:
                length = self.headers.get("content-length", "")
                if self.path != PATH:
                    status = HTTPStatus.NOT_FOUND
                elif not (length.isascii() and length.isdigit() and int(length) <= LARGEST):
                    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                else:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    status = service.receive(headers, self.rfile.read(int(length)))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Silent: what matters is logged where it is decided."""

        self._server = ThreadingHTTPServer(address, Handler)
        self._server.daemon_threads = True
        self._worker = threading.Thread(target=self._work, name="work", daemon=True)

    @property
    def url(self) -> str:
        """Where requests go."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}{PATH}"

    def receive(self, headers: Mapping[str, str], body: bytes) -> HTTPStatus:
        """Take a request, or say why not. Only what is on disk is acknowledged; the rest is sent again."""
        try:
            return self._take(headers, body)
        except (OSError, PipelineError) as error:  # the disk is full, or the secret is being written
            log.error("a request could not be taken: %s", error)  # noqa: TRY400
            return HTTPStatus.SERVICE_UNAVAILABLE

    def _take(self, headers: Mapping[str, str], body: bytes) -> HTTPStatus:
        if why := verify(read_secrets(self._secret_file), headers, body, time.time()):
            log.warning("a request was refused: %s", why)
            return HTTPStatus.UNAUTHORIZED
        try:
            event = json.loads(body)
            kind, ident = event["type"], event["data"]["retraining"]["id"] if event["type"] == REQUESTED else ""
        except (ValueError, KeyError, TypeError):
            log.warning("a signed request has no event that we can read")
            return HTTPStatus.BAD_REQUEST
        if kind != REQUESTED:
            log.info("an event of type %s: nothing to do", kind)
            return HTTPStatus.NO_CONTENT
        file = self._inbox.put(headers["webhook-id"], event)
        if file is None:
            log.info("delivery %s came before: nothing to do", headers["webhook-id"])
        else:
            log.info("retraining %s: %s", str(ident)[:8], event["data"].get("reason", ""))
            self._queue.put(file)
        return HTTPStatus.ACCEPTED

    def start(self) -> None:
        """Begin to listen and to work, in threads."""
        self._worker.start()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="http", daemon=True).start()
        log.info("listening on %s", self.url)

    def stop(self) -> None:
        """Take nothing more. What is being worked on is begun again at the next start."""
        self._server.shutdown()
        self._server.server_close()

    def join(self) -> None:
        """Wait until all that came so far was worked on."""
        self._queue.put(None)
        self._worker.join()

    def _work(self) -> None:
        while (file := self._queue.get()) is not None:
            try:
                self._work_on(json.loads(file.read_bytes()))
            except Exception:  # an event that is not what we know, or a full disk
                log.exception("a request could not be worked on")
            self._inbox.done(file)


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    columns = Columns(options.label, options.id, options.time, tuple(options.ignore))
    try:
        models = Models(options.models)
        if options.command == "first":
            training = options.training.resolve()
            rows = read_rows(training, columns)
            models.save(options.version, "model", Model.train(rows, columns))
            models.deploy(options.version, rows=training, trained_on=str(training))
            log.info("version %s, trained on %s rows, is live", options.version, f"{len(rows):,}")
            return 0
        _ = models.live
        pipeline = Pipeline(models, Daemon(options.daemon, options.token_file), columns, options.holdout)
        host, _, port = options.listen.rpartition(":")
        service = Service((host, int(port)), options.secret_file, Inbox(options.inbox), pipeline.work_on)
    except (PipelineError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400
        return 1
    service.start()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    service.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("first", help="train the first model and make it live")
    serve = commands.add_parser("serve", help="wait for requests to retrain")
    for each in (first, serve):
        each.add_argument("--models", type=Path, required=True, help="folder of model versions and live.json")
        each.add_argument("--label", required=True, help="column of the truth")
        each.add_argument("--id", required=True, help="column of row ids")
        each.add_argument("--time", required=True, help="column of event times")
        each.add_argument("--ignore", action="append", default=[], help="a column that is no feature (repeatable)")
    first.add_argument("--training", type=Path, required=True, help="Parquet file of the training rows")
    first.add_argument("--version", required=True, help="of the model")
    serve.add_argument("--listen", default="127.0.0.1:8080", help="host:port, default 127.0.0.1:8080")
    serve.add_argument("--inbox", type=Path, default=Path("inbox"), help="folder of requests, default inbox")
    serve.add_argument("--secret-file", type=Path, required=True, help="the receiver's secret_file")
    serve.add_argument("--daemon", required=True, help="URL of the drift-monitor that sends the requests")
    serve.add_argument("--token-file", type=Path, help="its server.token_file, where it has one")
    serve.add_argument("--holdout", type=float, default=HOLDOUT, help=f"share held out, default {HOLDOUT}")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
