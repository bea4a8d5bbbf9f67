"""A session on a Spark: opened once however often it is asked for, with this package on its workers.

A Java process belongs to each session of a `spark://`, `yarn`, `k8s://` or `local` master. It is a child of this
process and in its process group, so whoever kills the group kills it; and it ends by itself when its standard
input is closed, so it does not outlive us. Its memory is bounded by `spark.driver.memory`.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from drift_monitor.clusters.package import zipped
from drift_monitor.config.clusters import SparkCluster
from drift_monitor.core.errors import DriftMonitorError, ExecutorError

if TYPE_CHECKING:
    import pyarrow as pa

Job = Callable[[Iterable["pa.RecordBatch"]], Iterable["pa.RecordBatch"]]
BATCH_ROWS: Final = 1 << 17
_SETTINGS: Final = {"spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH_ROWS)}
_OF_JAVA: Final = {
    "spark.app.name": "drift-monitor",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_OF_LOCAL: Final = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
_ALWAYS: Final = {"spark.sql.session.timeZone": "UTC"}
_PYTHON: Final = "PYSPARK_PYTHON"
_LONGEST: Final = 600
_HINTS: Final = {
    "PACKAGE_NOT_INSTALLED": "pip install 'pyspark[connect]' (or 'pyspark[sql]' for another master)",
    "JAVA_GATEWAY_EXITED": "install Java 17 or newer, and set JAVA_HOME if it is not on the PATH",
    "No module named": "install it for the workers' Python: they need numpy, pyarrow and pydantic, and pandas "
    "where `columns.id` is text",
    "PYTHON_VERSION_MISMATCH": "set `python` to one of the same version on the workers",
    "exited unexpectedly": "a worker died, most often of too little memory: give it more, such as by "
    "spark.executor.memoryOverhead in `options`",
    "stopped SparkContext": "its master does not answer: see that it is up and can be reached from here",
    "maxResultSize": "raise spark.driver.maxResultSize in `options`",
    "TABLE_OR_VIEW_NOT_FOUND": "write `table` as Spark's SQL does, with its catalog and schema",
    "COLUMN_ALREADY_EXISTS": "set spark.sql.caseSensitive to true in `options` if names differ by case alone",
    "SQLSTATE": "correct the source's `table` or `query`",
}
_ELSE: Final = "see that it is up, can be reached from here and has free cores, then let the check run again"


class _Open:
    """The one session of this process."""

    session: Any = None
    package: Final = ExitStack()  # its file is asked for as long as the session is there
    users: int = 0
    wanted: str = ""
    lock: Final = threading.Lock()  # of `warnings`, which has one list for all threads


@contextmanager
def session(cluster: SparkCluster) -> Iterator[Any]:
    """A session; whoever asks for it while it is open gets the same.

    Raises:
        ExecutorError: it cannot be had.
        SourceError: the library or a variable of the environment is missing.
    """
    wanted = SparkCluster.model_dump_json(cluster, include={"master", "python", "options"})
    if not _Open.users:
        with explained(cluster) as options:
            _begin(cluster, options, wanted)
    elif _Open.wanted != wanted:
        raise ExecutorError(f"this process has a session of another Spark open, so none at {cluster.master}")
    _Open.users += 1
    try:
        yield _Open.session
    finally:
        _Open.users -= 1
        if not _Open.users:  # whatever it held of the cluster is free again
            with suppress(Exception):  # a cluster that is gone cannot be told so
                _Open.session.stop()
            _Open.session = None
            _Open.package.close()


def map_in_arrow(frame: Any, job: Job, into: str) -> Any:
    """`frame.mapInArrow`, which only uses Arrow but asks for pandas, and warns of its newer versions."""
    with _Open.lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        return frame.mapInArrow(job, into)


@contextmanager
def explained(cluster: SparkCluster) -> Iterator[Mapping[str, str]]:
    """Whatever goes wrong becomes an ExecutorError with the cluster and what to do. Gives Spark's settings."""
    from drift_monitor.sources.secrets import Secrets  # noqa: PLC0415 - sources import this room

    secrets = Secrets()
    try:
        yield secrets.options(cluster.options)
    except (DriftMonitorError, MemoryError):
        raise
    except Exception as error:
        hint = next((hint for word, hint in _HINTS.items() if word in str(error)), _ELSE)
        text = f"Spark at {cluster.master}: {_brief(error)}: {hint}"
        raise ExecutorError(secrets.hidden(text)) from error


def _begin(cluster: SparkCluster, options: Mapping[str, str], wanted: str) -> None:
    from drift_monitor.sources.extras import load  # noqa: PLC0415 - sources import this room

    builder = load("pyspark.sql", "spark").SparkSession.builder
    local, connect = cluster.master.startswith("local"), cluster.master.startswith("sc://")
    fixed = {} if connect else _OF_JAVA | (_OF_LOCAL if local else {})
    settings = {**_SETTINGS, **fixed, **options, **_ALWAYS}
    same, _Open.wanted = _Open.wanted == wanted, wanted
    package = str(_Open.package.enter_context(zipped()))
    if connect:
        _Open.session = builder.remote(cluster.master).config(map=settings).create()
        _Open.session.addArtifacts(package, pyfile=True)
        return
    if not same:  # some settings are those of the Java process, which has them from its begin
        _end_java()
    with _python(cluster.python or (sys.executable if local else None)):
        _Open.session = builder.master(cluster.master).config(map=settings).getOrCreate()
    _Open.session.sparkContext.setLogLevel("ERROR")
    _Open.session.sparkContext.addPyFile(package)


@contextmanager
def _python(path: str | None) -> Iterator[None]:
    """Tell Spark which Python its workers are to use, in the only way it has."""
    before = os.environ.get(_PYTHON)
    if path is not None:
        os.environ[_PYTHON] = path
    try:
        yield
    finally:
        if path is not None:
            del os.environ[_PYTHON]
            if before is not None:
                os.environ[_PYTHON] = before


def _end_java() -> None:
    from pyspark import SparkContext  # noqa: PLC0415

    gateway = SparkContext._gateway  # noqa: SLF001 - there is no other way to it
    if gateway is None:
        return
    gateway.shutdown()
    process = getattr(gateway, "proc", None)
    if process is not None:
        process.stdin.close()
        process.wait(30)
    SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001


def _brief(error: Exception) -> str:
    """The first words of what Spark says, and the error that a Python worker met."""
    head, _, rest = str(error).partition("Traceback (most recent call last):")
    lines = [line.strip() for line in rest.splitlines()]
    met = next((line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)), "")
    words = " ".join(head.partition("JVM stacktrace")[0].split())[:_LONGEST]
    return f"{type(error).__name__}: {words}{' ... ' + met[:_LONGEST] if met else ''}"
