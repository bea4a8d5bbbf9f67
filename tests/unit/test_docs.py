"""The documentation knows every setting, every command and every field of a result, and is not stale."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import click
import pytest
from pydantic import BaseModel

from drift_monitor.cli import command
from drift_monitor.config.describe import descriptions, json_schema, sections
from drift_monitor.config.file import parse
from drift_monitor.config.models import Config
from drift_monitor.core.types import CheckResult

DOCS = Path(__file__).parents[2] / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fields(root: type[BaseModel]) -> list[tuple[type[BaseModel], str]]:
    return [(section, name) for section in sections(root) for name in section.model_fields]


@pytest.mark.parametrize("page", ["configuration.md", "json.md", "cli.md", "retraining.md", "metrics.md"])
def test_generated_pages_are_fresh(page: str) -> None:
    assert (DOCS / page).read_text() == generator().render(page), "run: python docs/generate.py"


@pytest.mark.parametrize(("section", "name"), fields(Config) + fields(CheckResult))
def test_every_field_says_what_it_means(section: type[BaseModel], name: str) -> None:
    assert descriptions(section).get(name, "").strip()


@pytest.mark.parametrize(("section", "name"), fields(Config))
def test_every_setting_is_documented(section: type[BaseModel], name: str) -> None:
    title = "The whole file" if section is Config else section.__name__
    chapter = (DOCS / "configuration.md").read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert f"| `{name}` |" in chapter


@pytest.mark.parametrize(("section", "name"), fields(CheckResult))
def test_every_field_of_a_result_is_documented(section: type[BaseModel], name: str) -> None:
    title = "The object" if section is CheckResult else section.__name__
    chapter = (DOCS / "json.md").read_text().partition(f"\n### {title}\n")[2].partition("\n### ")[0]
    assert f"| `{name}` |" in chapter


def commands(group: click.Group, path: str) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, each in group.commands.items():
        found.append((f"{path} {name}", each))
        if isinstance(each, click.Group):
            found += commands(each, f"{path} {name}")
    return found


@pytest.mark.parametrize(
    ("path", "each"), commands(command, "drift-monitor"), ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_command_is_documented_with_its_options_and_examples(path: str, each: click.Command) -> None:
    chapter = (DOCS / "cli.md").read_text().partition(f"\n## {path}\n")[2].partition("\n## ")[0]
    assert "Examples:" in chapter
    assert re.search(rf"^ +{path}", chapter, re.MULTILINE), "an example shows the command itself"
    for option in each.params:
        if isinstance(option, click.Option):
            assert option.opts[-1] in chapter


def test_the_example_configuration_is_right() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    assert list(parse(text, Path("/etc/drift-monitor.yaml")).monitors) == ["flight-delay"]


def test_the_example_result_is_one() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", (DOCS / "json.md").read_text(), re.DOTALL)
    CheckResult.model_validate_json(text)
    assert set(json.loads(text)) == set(CheckResult.model_fields)


def test_the_promised_fields_exist() -> None:
    promised = re.findall(r"^- These fields.*?(?=^- )", (DOCS / "json.md").read_text(), re.DOTALL | re.MULTILINE)[
        0
    ]
    for name in re.findall(r"`(\w+)[`{\[]", promised):
        assert name in CheckResult.model_fields


def test_defaults_in_the_schema_are_written_as_a_person_would() -> None:
    text = json.dumps(json_schema())
    assert '"PT' not in text
    assert '"default": "2GiB"' in text
    assert '"default": "10m"' in text


def test_the_schema_knows_the_short_form_of_persistence() -> None:
    assert json_schema()["$defs"]["Persistence"]["anyOf"][0]["type"] == "string"
