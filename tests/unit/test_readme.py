"""What README and docs tell people to write or to type is accepted by the program."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from drift_monitor.cli import command as program
from drift_monitor.config.file import parse
from drift_monitor.receivers.webhook import sign

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (page.name, text) for page in PAGES for found, text in BLOCK.findall(page.read_text()) if found == language
    ]


def commands() -> list[tuple[str, str]]:
    lines = [
        (page, line.strip())
        for page, text in blocks("sh")
        for line in text.replace("\\\n", " ").splitlines()
        if line.strip().startswith("drift-monitor ")
    ]
    assert lines
    return lines


@pytest.mark.parametrize(("page", "text"), [b for b in blocks("yaml") if "monitors:" in b[1]])
def test_every_whole_configuration_is_valid(page: str, text: str, tmp_path: Path) -> None:
    config = parse(text, tmp_path / "drift-monitor.yaml")
    assert config.monitors


def test_the_configuration_of_the_readme_is_short() -> None:
    (text,) = [text for page, text in blocks("yaml") if page == "README.md"]
    assert len(text.splitlines()) <= 11


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_line_is_understood(page: str, line: str) -> None:
    _, *words = shlex.split(line, comments=True)
    command: click.Command = program
    context = click.Context(program, info_name="drift-monitor")
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{page}: {line}"
        command = found
        context = click.Context(command, parent=context, info_name=name)
    known = {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{page}: {line}"


def test_the_verification_that_the_docs_give_accepts_ours_and_nothing_else() -> None:
    (text,) = [text for page, text in blocks("python") if page == "webhooks.md"]
    names: dict[str, Callable[..., bool]] = {}
    exec(compile(text, "webhooks.md", "exec"), names)
    verify = names["verify"]
    key, now, body = bytes(range(32)), int(time.time()), b'{"id": "e1"}'
    secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

    def headers(sent: int, keys: list[bytes]) -> dict[str, str]:
        return {
            "webhook-id": "e1",
            "webhook-timestamp": str(sent),
            "webhook-signature": sign(keys, "e1", sent, body),
        }

    assert verify(secret, headers(now, [key]), body)
    assert verify(secret, headers(now, [b"x" * 32, key]), body)
    assert not verify(secret, headers(now, [b"x" * 32]), body)
    assert not verify(secret, headers(now, [key]), body + b" ")
    assert not verify(secret, headers(now - 3600, [key]), body)
