"""What numbers mean, in words: the text panels, and the names and colors of states."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model
from panels import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, YELLOW, mapping

WHAT_A_SCORE_MEANS = """\
**Score / threshold** says how far live data is from the training data.

- **Below 1**: no further than the threshold allows.
- **Above 1**: drift. Alerts wait until it lasts, as the monitor's `persistence` says.

Scores of different monitors, features or methods compare **only** in this form.

**Broken data** is told apart: nulls, ranges, categories, volume. Repair it before you believe a score.

A score says that data moved, not that the model got worse: labels tell that.
"""

WHAT_A_FEATURE_SAYS = """\
**The score** is the distance between this feature's live values and its values in the training data, by the \
method named in the legend. Larger is further, for every method.

**The dashed line** is the threshold that score is held against.

**The p-value** asks how often independent rows from one distribution would be this far apart. Live rows are \
seldom independent, and with many rows every trifle is "significant": read the score first. It is exported with \
`p_values` in `metrics.detail`.

**Out of range** and **new categories** count rows that the training data has no like of: there the model guesses.
"""

_STATES = {
    "0": ("ok", GREEN),
    "1": ("drift", RED),
    "2": ("broken data", ORANGE),
    "3": ("drift, broken data", RED),
}
STATES: list[model.ValueMap | model.RangeMap] = [
    mapping(_STATES),
    model.RangeMap(
        options=model.DashboardRangeMapOptions(
            from_val=4, to=7, result=model.ValueMappingResult(text="stale", color=PURPLE, index=4)
        )
    ),
]
"""Words for `queries.state`."""

FAINT = "rgba(128, 128, 128, 0.2)"
EPISODES = mapping({"8": ("", FAINT), "9": ("open", ORANGE)})
HELD = mapping({"0": ("", FAINT), "1": ("holds back", ORANGE)})
CAME = mapping({"1": ("", BLUE)})
YES_NO = mapping({"0": ("no", GREY), "1": ("yes", GREEN)})
DRIFTED = mapping({"0": ("no", GREEN), "1": ("drifted", RED)})
UP = mapping({"0": ("down", RED), "1": ("up", GREEN)})
TAKEN = mapping({"0": ("refused", RED), "1": ("loaded", GREEN)})
RUNS = mapping({"0": ("stopped", RED), "1": ("runs", GREEN)})
PLAIN = ((None, "text"),)
SHOULD_BE_ZERO = ((None, GREEN), (1, RED))
MAY_WAIT = ((None, GREEN), (1, YELLOW))
