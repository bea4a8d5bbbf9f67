"""Every query of every dashboard, as Grafana would send it."""

import json
import re
from pathlib import Path
from typing import NamedTuple

DASHBOARDS = sorted((Path(__file__).parents[2] / "grafana" / "dashboards").glob("*.json"))
OF_ONE_MONITOR = {"monitor", "feature"}  # dashboards with one monitor, and one feature, at a time


class Asked(NamedTuple):
    """One query.

    Attributes:
        page: the dashboard.
        where: the panel's title, or `variable` or `annotation`.
        which: the target's refId, or the name of the variable or annotation.
        how: `instant`, `range`, or `values` of a label.
        text: PromQL, or label_values(selector, label), with variables in it.
    """

    page: str
    where: str
    which: str
    how: str
    text: str

    @property
    def name(self):
        """For people."""
        return f"{self.page}-{self.where}-{self.which}"


def everything_asked():
    """Every query of every dashboard's panels, variables and annotations."""
    for file in DASHBOARDS:
        dashboard = json.loads(file.read_text(encoding="utf-8"))
        page = dashboard["uid"].removeprefix("drift-monitor-")
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                how = "instant" if target["instant"] else "range"
                yield Asked(page, panel["title"], target["refId"], how, target["expr"])
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield Asked(page, "variable", variable["name"], "values", variable["query"]["query"])
        for annotation in dashboard["annotations"]["list"]:
            yield Asked(page, "annotation", annotation["name"], "range", annotation["expr"])


def substituted(text, **selected):
    """A query as Grafana sends it with everything selected where there is no choice of just one.

    Raises:
        AssertionError: a variable is left over.
    """
    everything = dict.fromkeys(("job", "instance", "monitor", "phase"), ".+")
    chosen = everything | {"__range": "1m", "__rate_interval": "5s"}
    for name, value in (chosen | selected).items():
        text = re.sub(rf"\$(?:{name}\b|\{{{name}\}})", value, text)
    assert "$" not in text, f"a variable is left over: {text}"
    return text


def answer(get, asked, start, end, **selected):
    """What a panel can draw: numbers, or the values of a variable.

    Args:
        get: (path of Prometheus' API, **parameters) -> the `data` of its answer.
        asked: the query.
        start: of the time on the screen, in unix seconds.
        end: of it; instant queries are asked as of then.
        **selected: the variables with one value.
    """
    text = substituted(asked.text, **selected)
    if asked.how == "values":
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", text).groups()
        return get(f"label/{label}/values", **{"match[]": series, "start": start, "end": end})
    if asked.how == "instant":
        result = get("query", query=text, time=end)["result"]
    else:
        result = get("query_range", query=text, start=start, end=end, step=1)["result"]
    values = [value for one in result for _, value in one.get("values", [one.get("value")])]
    return [value for value in values if value != "NaN"]
