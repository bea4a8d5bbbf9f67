"""Files in an S3 bucket, or in a store that speaks as S3 does."""

from __future__ import annotations

import re
from time import time_ns
from typing import IO, TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from drift_monitor.core.errors import SourceError
from drift_monitor.sources.places import ENDINGS, MAGIC, Status, ending

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs

SCHEME: Final = "s3://"
_SECONDS: Final = 20
_ATTEMPTS: Final = 3
_LONGEST: Final = 300
_YOUNG: Final = 60 * 10**9
"""Nanoseconds. S3 tells times in whole seconds; the rest is for clocks that differ."""


class ObjectStore:
    """The buckets that the credentials of the environment can read; paths begin with `s3://bucket/`.

    Args:
        bucket: whose region is looked up where neither region nor endpoint is given.
        endpoint: URL of a store that is not AWS.
        region: of the bucket.

    Raises:
        SourceError: the store cannot be reached.
    """

    appends: Final = False

    def __init__(self, bucket: str, endpoint: str | None, region: str | None) -> None:
        import pyarrow.fs as pafs  # noqa: PLC0415 - loads what speaks to AWS

        where: dict[str, Any] = {}
        if endpoint is not None:
            parts = urlsplit(endpoint)
            where = {"endpoint_override": parts.netloc, "scheme": parts.scheme}
        elif region is None:
            try:
                region = pafs.resolve_s3_region(bucket)
            except OSError as error:
                raise SourceError(f"the region of bucket {bucket!r} cannot be found: {_brief(error)}") from error
        self._files: pafs.S3FileSystem = pafs.S3FileSystem(
            region=region,
            connect_timeout=_SECONDS,
            request_timeout=_SECONDS,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            **where,
        )

    def find(self, pattern: str) -> dict[str, Status | None]:
        """See `Place`. A glob is asked for below its first wildcard, and matched here."""
        try:
            found = self._find(pattern.removeprefix(SCHEME).rstrip("/"))
        except OSError as error:
            raise SourceError(f"{pattern!r} cannot be read: {_brief(error)}") from error
        if not found:
            raise SourceError(
                f"no object matches {pattern!r}"
                if MAGIC & set(pattern)
                else f"there is no object {pattern!r}, nor one below it that ends in {', '.join(ENDINGS)}"
            )
        return {SCHEME + info.path: _status(info) for info in sorted(found, key=lambda info: info.path)}

    def _find(self, key: str) -> list[pafs.FileInfo]:
        import pyarrow.fs as pafs  # noqa: PLC0415

        exact = self._files.get_file_info(key) if "/" in key else None
        if exact is not None and exact.type == pafs.FileType.File:
            return [exact]
        parts = key.split("/")
        fixed = next((i for i, part in enumerate(parts) if MAGIC & set(part)), len(parts))
        base = "/".join(parts[:fixed])
        deep = fixed < len(parts) - 1 or fixed == len(parts) or "**" in key
        listed = self._files.get_file_info(pafs.FileSelector(base, recursive=deep, allow_not_found=True))
        wanted = None if fixed == len(parts) else re.compile(_regex(parts[fixed:]), re.DOTALL)
        found = []
        for info in listed:
            name = info.path.removeprefix(base).lstrip("/")
            hidden = any(part.startswith((".", "_")) for part in name.split("/"))
            if info.type == pafs.FileType.File and not hidden:
                matches = bool(ending(name)) if wanted is None else wanted.fullmatch(name) is not None
                found += [info] if matches else []
        return found

    def status(self, path: str) -> Status:
        """See `Place`."""
        info = self._files.get_file_info(path.removeprefix(SCHEME))
        if not info.is_file:
            raise FileNotFoundError(f"there is no object {path!r} any more")
        return _status(info)

    def open(self, path: str) -> pa.NativeFile:
        """See `Place`."""
        return self._files.open_input_file(path.removeprefix(SCHEME))

    def stream(self, path: str) -> IO[bytes]:
        """See `Place`."""
        return cast("IO[bytes]", self.open(path))


def _status(info: pafs.FileInfo) -> Status:
    changed = info.mtime_ns or 0
    return Status(info.size, changed, settled=changed < time_ns() - _YOUNG)


def _regex(parts: list[str]) -> str:
    r"""The regular expression of a glob; `**` stands for any folders, none among them.

    Example:
        >>> _regex(["**", "day=*", "[!a]?.parquet"])
        '(?:[^/]+/)*day=[^/]*/[^a][^/]\\.parquet'
    """
    text = ""
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if part == "**":
            text += ".*" if last else "(?:[^/]+/)*"
        else:
            text += _segment(part) + ("" if last else "/")
    return text


def _segment(part: str) -> str:
    text = ""
    at = 0
    while at < len(part):
        close = part.find("]", at + 2) if part[at] == "[" else -1
        if close > 0:
            inner = part[at + 1 : close].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
            text += f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
            at = close
        else:
            text += {"*": "[^/]*", "?": "[^/]"}.get(part[at], re.escape(part[at]))
        at += 1
    return text


def _brief(error: OSError) -> str:
    return " ".join(str(error).split())[:_LONGEST]
