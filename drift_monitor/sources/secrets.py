"""Variables and passwords filled in when a source is opened, and kept out of what is said about it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from drift_monitor.config.tables import VARIABLE
from drift_monitor.core.errors import SourceError

_MOST = 65_536  # bytes of a password file


class Secrets:
    """What was filled in.

    Example:
        >>> secrets = Secrets({"PW": "p@ss"})
        >>> secrets.uri("postgresql://me:${PW}@host/db")
        'postgresql://me:p%40ss@host/db'
        >>> secrets.hidden("no entry for p@ss")
        'no entry for ***'
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._values: set[str] = set()

    def fill(self, text: str) -> str:
        """The text with its variables filled in.

        Raises:
            SourceError: a variable is not set.
        """
        return VARIABLE.sub(lambda match: self._value(match[1]), text)

    def options(self, options: Mapping[str, str]) -> dict[str, str]:
        """The same for every value."""
        return {name: self.fill(value) for name, value in options.items()}

    def uri(self, text: str, password_file: Path | None = None) -> str:
        """A URI with its variables filled in, escaped where they are user name or password.

        Args:
            text: the URI.
            password_file: holds the password of its user.

        Raises:
            SourceError: a variable is not set, or the file cannot be read.
        """
        head, colon, rest = text.partition("://")
        authority, question, settings = rest.partition("?")
        user, at, host = authority.rpartition("@")
        if colon and at:
            user = VARIABLE.sub(lambda match: quote(self._value(match[1]), safe=""), user)
            text = f"{head}://{user}@{host}{question}{settings}"
        text = self.fill(text)
        head, _, rest = text.partition("://")
        authority, question, settings = rest.partition("?")
        user, at, host = authority.rpartition("@")
        name, _, password = user.partition(":")
        if password:
            self._values |= {password, unquote(password)}
        if password_file is None:
            return text
        if not name or password:
            raise SourceError("`password_file` needs a uri with a user and without a password")
        password = _read_password(password_file)
        self._values |= {password, quote(password, safe="")}
        return f"{head}://{name}:{quote(password, safe='')}@{host}{question}{settings}"

    def hidden(self, text: str) -> str:
        """The text without any value that was filled in."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, "***")
        return text

    def _value(self, name: str) -> str:
        value = self._environment.get(name)
        if not value:
            raise SourceError(f"the source names the variable {name} of the environment, which is not set")
        self._values |= {value, quote(value, safe="")}
        return value


def _read_password(path: Path) -> str:
    try:
        with path.open("rb") as file:
            password = file.read(_MOST).decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise SourceError(f"{path}: the password file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SourceError(f"{path}: the password is not UTF-8") from None
    if not password or not password.isprintable():
        raise SourceError(f"{path}: a password is one line and not empty")
    return password
