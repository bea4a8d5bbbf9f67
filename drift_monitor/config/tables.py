"""Sources whose rows lie in tables: databases by SQL, Delta Lake, Iceberg. No I/O.

A secret never stands in the file: it is `${VARIABLE}` of the environment, or in a file of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from drift_monitor.config.zones import TimeZone
from drift_monitor.core.policy import Delay, Model

VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A variable of the environment, which is filled in when the source is opened."""
SCHEMES: Final = ("postgresql", "postgres", "duckdb", "sqlite")
_SECRET: Final = re.compile(
    r"pass(word|wd|phrase)?|pwd|secret|token|credential|(access|account|private|sas)[_-]?key", re.IGNORECASE
)
_NOT_SECRET: Final = re.compile(r"[_-](id|uri|url|file|path|provider|endpoint|type)$", re.IGNORECASE)
_PART: Final = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


def scheme(uri: str) -> str | None:
    """What a URI begins with; None where a variable holds the whole of it.

    Example:
        >>> scheme("duckdb://live.db"), scheme("${DATABASE_URL}")
        ('duckdb', None)
    """
    found, colon, _ = uri.partition("://")
    return found if colon and not VARIABLE.search(found) else None


def table_parts(table: str) -> list[str] | None:
    """The parts of a table's name; None when it is not one.

    Example:
        >>> table_parts("public.flights"), table_parts('"a.b".c'), table_parts("a..b")
        (['public', 'flights'], ['a.b', 'c'], None)
    """
    parts: list[str] = []
    at = 0
    while found := _PART.match(table, at):
        parts.append(found[2] if found[1] is None else found[1].replace('""', '"'))
        if found.end() == len(table):
            return parts
        if table[found.end()] != ".":
            return None
        at = found.end() + 1
    return None


def _without_secrets(options: dict[str, str]) -> dict[str, str]:
    for name, value in options.items():
        if _SECRET.search(name) and not _NOT_SECRET.search(name) and not VARIABLE.fullmatch(value):
            raise ValueError(
                f"the value of {name!r} is a secret, which must not stand in the file: put it into a variable of "
                "the environment and write ${ITS_NAME}"
            )
        if scheme(value) is not None:
            _refuse_password(value)
    return options


def _refuse_password(uri: str) -> None:
    """Say so when a URI holds a password, without repeating it."""
    authority, _, _ = uri.partition("://")[2].partition("?")
    user, at, _ = authority.rpartition("@")
    _, colon, password = user.partition(":")
    settings = re.findall(r"[?&]([^=&]*)=([^&]*)", uri)
    bad = bool(at and colon and not VARIABLE.fullmatch(password))
    if bad or any(_SECRET.search(name) and not VARIABLE.fullmatch(value) for name, value in settings):
        raise ValueError(
            "a password must not stand in the file: put it into a variable of the environment and write "
            "${ITS_NAME} in its place, or give `password_file` where there is one"
        )


def without_password(uri: str) -> str:
    """A URI without its password, to tell one database from another.

    Example:
        >>> without_password("postgresql://me:pw@db/log?sslmode=require&sslpassword=x")
        'postgresql://me@db/log?sslmode=require'
    """
    head, colon, rest = uri.rpartition("://")
    authority, question, settings = rest.partition("?")
    user, at, host = authority.rpartition("@")
    shown = "&".join(each for each in settings.split("&") if not _SECRET.search(each.partition("=")[0]))
    return f"{head}{colon}{user.partition(':')[0]}{at}{host}{question}{shown}"


Options = Annotated[dict[str, str], AfterValidator(_without_secrets)]


class TableSource(Model):
    """What every table has."""

    timestamp: Annotated[
        str | None, Field(description="event-time column; without one the whole source is a window")
    ] = None
    timezone: Annotated[TimeZone, Field(description="of timestamps that carry none")] = "UTC"


class SqlSource(TableSource):
    """Rows of a database: a table, a view or a query. Needs the extra `sql`, except for SQLite.

    Attributes:
        type: `sql`.
        uri: `postgresql://user@host/database`, `duckdb://path`, `sqlite://path`, or what `driver` takes.
        driver: of ADBC, for other databases: `snowflake`, `flightsql`, ... or the path of a shared library.
        options: of that driver, by name.
        password_file: file with the password of PostgreSQL's user; read whenever the source is opened.
        table: `name` or `schema.name`, spelled as in the database; a part with a dot or a quote in double quotes.
        query: a SELECT, used instead of a table.
        lateness: a bucket that ended longer ago is read once and kept: rows that are inserted, changed or deleted
            later are not seen. Each check reads its whole window when absent.
        sample: percent of a PostgreSQL table's pages that are read (TABLESAMPLE SYSTEM); all when absent.
        pushdown: the SQL that the database speaks, in which it counts a window by itself: no row leaves it. Needs
            the extra `pushdown`. Rows are read when absent.
    """

    type: Literal["sql"]
    uri: Annotated[str, Field(min_length=1)]
    driver: Annotated[str | None, Field(min_length=1)] = None
    options: Options = {}
    password_file: Path | None = None
    table: Annotated[str | None, Field(min_length=1)] = None
    query: Annotated[str | None, Field(min_length=1)] = None
    lateness: Delay | None = None
    sample: Annotated[float | None, Field(gt=0, lt=100)] = None
    pushdown: Literal["postgres", "duckdb", "snowflake", "bigquery", "trino"] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        known = scheme(self.uri)
        whole = VARIABLE.fullmatch(self.uri) is not None
        if self.driver is None and not whole and known not in SCHEMES:
            raise ValueError(
                f"uri must begin with one of {', '.join(f'{each}://' for each in SCHEMES)}, or `driver` must name "
                "an ADBC driver"
            )
        _refuse_password(self.uri)
        if (self.table is None) == (self.query is None):
            raise ValueError("give exactly one of `table` and `query`")
        if self.table is not None and table_parts(self.table) is None:
            raise ValueError(
                "table must be a name such as flights or public.flights; put a part that has a dot or a quote in "
                'double quotes, such as public."flights.v2"'
            )
        postgres = self.driver is None and (whole or known in ("postgresql", "postgres"))
        if self.options and self.driver is None:
            raise ValueError("`options` are those of a `driver`: PostgreSQL takes its own in the uri, after a ?")
        if self.password_file is not None and not postgres:
            raise ValueError("`password_file` is for PostgreSQL")
        if self.lateness is not None and self.timestamp is None:
            raise ValueError("`lateness` is counted from event times: name the `timestamp` column")
        if self.sample is not None and not (postgres and self.table is not None):
            raise ValueError("`sample` is for tables of PostgreSQL")
        return self

    @model_validator(mode="after")
    def _can_be_counted(self) -> Self:
        if self.pushdown is None:
            return self
        own = {"postgresql": "postgres", "postgres": "postgres", "duckdb": "duckdb", None: "postgres"}
        if self.driver is None and self.pushdown != (speaks := own.get(scheme(self.uri), "neither")):
            raise ValueError(
                f"`pushdown: {self.pushdown}` is not what this uri's database speaks ({speaks}): "
                "other databases than PostgreSQL and DuckDB need a `driver`, and SQLite's rows are read"
            )
        if self.lateness is not None or self.sample is not None:
            raise ValueError("`pushdown` counts whole windows anew: leave out `lateness` and `sample`")
        if self.timezone != "UTC":
            raise ValueError("`pushdown` takes times without a zone for UTC: convert them in a `query`")
        return self


class DeltaSource(TableSource):
    """A Delta Lake table, as it is when it is opened. Needs the extra `delta`.

    Attributes:
        type: `delta`.
        path: the table's folder, or an address such as `s3://bucket/table`.
        storage_options: of the object store, by the names that delta-rs gives them.
    """

    type: Literal["delta"]
    path: Annotated[str, Field(min_length=1)]
    storage_options: Options = {}

    @model_validator(mode="after")
    def _no_password(self) -> Self:
        _refuse_password(self.path)
        return self


class IcebergSource(TableSource):
    """An Iceberg table, as it is when it is opened. Needs the extra `iceberg`.

    Attributes:
        type: `iceberg`.
        name: of the catalogue, as whoever writes the table calls it; a SQL catalogue's tables belong to one.
        catalog: PyIceberg's properties by name, such as `type`, `uri`, `warehouse`.
        table: `namespace.table`.
    """

    type: Literal["iceberg"]
    name: Annotated[str, Field(min_length=1)] = "default"
    catalog: Annotated[Options, Field(min_length=1)]
    table: Annotated[str, Field(pattern=r"^[^.]+(\.[^.]+)+$")]


Table = SqlSource | DeltaSource | IcebergSource
