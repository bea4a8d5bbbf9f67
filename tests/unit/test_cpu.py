from __future__ import annotations

from pathlib import Path

import pytest

from drift_monitor.cpu import VARIABLE, choose_vectors

ZEN_4 = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nflags\t\t: avx2 avx512f avx512vl\n"


def test_zen_4_sorts_with_short_vectors(tmp_path: Path) -> None:
    described = tmp_path / "cpuinfo"
    described.write_text(f"{ZEN_4}\n{ZEN_4}")
    environment: dict[str, str] = {}
    choose_vectors(environment, described)
    assert environment == {VARIABLE: "X86_V4"}


@pytest.mark.parametrize(
    "text",
    [
        ZEN_4.replace("AuthenticAMD", "GenuineIntel"),
        ZEN_4.replace(": 25", ": 26"),  # Zen 5 has it in hardware
        ZEN_4.replace("avx512f avx512vl", ""),  # Zen 3 is of the same family and has no AVX-512: numpy would warn
        "",
    ],
)
def test_others_keep_what_numpy_chooses(tmp_path: Path, text: str) -> None:
    described = tmp_path / "cpuinfo"
    described.write_text(text)
    environment: dict[str, str] = {}
    choose_vectors(environment, described)
    choose_vectors(environment, tmp_path / "missing")
    assert environment == {}


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    described = tmp_path / "cpuinfo"
    described.write_text(ZEN_4)
    environment = {VARIABLE: ""}
    choose_vectors(environment, described)
    assert environment == {VARIABLE: ""}
