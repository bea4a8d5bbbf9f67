"""The two distances that are said to be exact, or bracketed, against scipy on any floats: a short run.

`benchmarks/exactness.py` holds the cases and makes the long one.
"""

import sys
from pathlib import Path

from hypothesis import given, settings

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from exactness import Case, answers, cases


@settings(max_examples=300, deadline=None)
@given(cases())
def test_brackets_contain_scipy_on_any_floats(case: Case) -> None:
    for name, answer in answers(case).items():
        assert answer is None or answer.contained, f"{name}: {answer}"
