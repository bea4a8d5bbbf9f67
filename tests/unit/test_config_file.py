"""A configuration file is read completely, or refused with every problem and its place."""

from __future__ import annotations

import glob
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_monitor.config.document import MAX_BYTES
from drift_monitor.config.file import examine, load, parse
from drift_monitor.config.models import Config
from drift_monitor.core.errors import ConfigError

GOLDEN = Path(__file__).parent.parent / "golden" / "config"
MINIMAL = """\
monitors:
  flights:
    reference: training.parquet
    source: {path: "live/*.parquet"}
    schedule: {every: 1h}
"""


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("config.yaml"))
    return caught.value.problems


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda p: p.stem)
def test_each_rule_has_a_bad_file_and_its_exact_message(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(path.read_text(), Path(path.name))
    assert str(caught.value) + "\n" == path.with_suffix(".txt").read_text()


def test_no_message_speaks_the_language_of_a_library() -> None:
    for path in GOLDEN.glob("*.txt"):
        text = path.read_text()
        for word in ("pydantic", "Input should", "Value error", "ruamel", "NoneType", "timedelta", "BaseModel"):
            assert word not in text, path.name


def test_a_minimal_file_is_complete_after_reading() -> None:
    config = parse(MINIMAL, Path("/etc/drift/config.yaml"))
    monitor = config.monitors["flights"]
    assert monitor.schedule.every == timedelta(hours=1)
    assert monitor.window.length == timedelta(days=1)
    assert config.server.listen == "127.0.0.1:9877"


def test_relative_paths_begin_at_the_folder_of_the_file() -> None:
    text = (
        "state: ../state\nserver: {token_file: token}\n"
        "receivers: {hook: {type: webhook, url: 'https://hooks.example', secret_file: /run/secret}}\n" + MINIMAL
    )
    config = parse(text, Path("/etc/drift/config.yaml"))
    assert config.state == Path("/etc/drift/../state")
    assert config.server.token_file == Path("/etc/drift/token")
    assert config.receivers["hook"].secret_file == Path("/run/secret")
    assert config.monitors["flights"].reference == Path("/etc/drift/training.parquet")
    assert config.monitors["flights"].source.path == "/etc/drift/live/*.parquet"


def test_the_state_folder_that_nobody_wrote_down_is_absolute_too() -> None:
    assert parse(MINIMAL, Path("/etc/drift/config.yaml")).state == Path("/etc/drift/state")


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    config = parse(MINIMAL.replace("training.parquet", "~/t.csv").replace("live/", "~/live/"), Path("/etc/c.yaml"))
    assert config.monitors["flights"].reference == Path("/home/ada/t.csv")
    assert config.monitors["flights"].source.path == "/home/ada/live/*.parquet"


def test_the_home_of_an_unknown_user_is_refused() -> None:
    (problem,) = refused(MINIMAL.replace("training.parquet", "~nobody-of-this-name/t.csv"))
    assert "home directory" in problem


def test_a_folder_with_glob_characters_is_matched_as_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "run[1]"
    (folder / "live").mkdir(parents=True)
    (folder / "live" / "a.parquet").touch()
    config = parse(MINIMAL, folder / "config.yaml")
    assert glob.glob(config.monitors["flights"].source.path) == [str(folder / "live" / "a.parquet")]


def test_numbers_words_and_times_follow_yaml_1_2() -> None:
    text = MINIMAL + (
        "    model: {name: no, version: 012x, owner: 12:30:00}\n"
        "    alarm: {min_rows: 0x10, alpha: 5e-3}\n"
        "    columns: {label: 'null', id: yes, kinds: {1: numeric, true: boolean}}\n"
    )
    monitor = parse(text, Path("c.yaml")).monitors["flights"]
    assert (monitor.model.name, monitor.model.version, monitor.model.owner) == ("no", "012x", "12:30:00")
    assert (monitor.alarm.min_rows, monitor.alarm.alpha) == (16, 0.005)
    assert (monitor.columns.label, monitor.columns.id) == ("null", "yes")
    assert monitor.columns.kinds == {"1": "numeric", "true": "boolean"}


def test_a_merge_key_is_an_unknown_key() -> None:
    assert refused("<<: {state: x}\n" + MINIMAL)[0].startswith('config.yaml:1:1: "<<": unknown key')


def test_bytes_that_are_not_utf_8_are_placed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("state: é\nserver: \n  listen: ".encode() + b"\xff\xfe\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:3:11: byte 0xff is not UTF-8"):
        load(path)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert list(load(path).monitors) == ["flights"]


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x7f", "\ufffe"])
def test_control_characters_are_placed(character: str) -> None:
    (problem,) = refused(f"state: a\nserver: b{character}\n")
    assert problem == f"config.yaml:2:10: character U+{ord(character):04X} is not allowed: remove it"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="1,000,000 at most"):
        load(path)


def test_depth_is_refused_before_it_costs_anything() -> None:
    (problem,) = refused("a: " + "[" * 200_000)
    assert "nested more than 20 deep" in problem


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file: `drift-monitor init"):
        load(tmp_path / "c.yaml")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.symlink_to(path)
    with pytest.raises(ConfigError, match="cannot be read: Too many levels of symbolic links"):
        load(path)


def test_problems_are_printable_whatever_the_file_says() -> None:
    problems = refused('"a\\u001b[31m\\u202e": 1\nstate: 5\nserver: "\\u0007\\u2028"\n')
    assert all(p.isprintable() for p in problems), problems


def test_a_thousand_problems_are_cut_to_a_hundred() -> None:
    problems = refused("".join(f"key{i}: 1\n" for i in range(1000)) + MINIMAL)
    assert len(problems) == 101
    assert problems[-1] == "... and 900 more"


def test_a_config_travels_as_json() -> None:
    config = parse(MINIMAL, Path("/etc/c.yaml"))
    assert Config.model_validate_json(config.model_dump_json()) == config


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_in_sentences(text: str) -> None:
    problems = refused(text)
    assert problems
    assert all(p.startswith("config.yaml:") and p.isprintable() for p in problems)


@given(st.integers(0, len(MINIMAL)), st.text(max_size=5))
def test_any_edit_of_a_good_file_is_read_or_refused_in_sentences(at: int, insert: str) -> None:
    text = MINIMAL[:at] + insert + MINIMAL[at:]
    config, _, problems = examine(text, Path("/etc/c.yaml"))
    assert (config is None) == bool(problems)
    assert all(str(p).startswith("/etc/c.yaml:") and str(p).isprintable() for p in problems)
