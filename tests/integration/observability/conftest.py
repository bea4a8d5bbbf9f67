"""The story of `scenario.py`, told once a session to every Prometheus and Alertmanager that is there."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from scenario import Scenario, play
from servers import SUITES, SYSTEM, Inbox, Pair, programs

MISSING = {SYSTEM: "prometheus and prometheus-alertmanager are not installed"} | {
    suite: f"the servers of Debian {suite} are not there: tests/integration/observability/fetch_servers.sh"
    for suite in SUITES
}


@dataclass(frozen=True)
class Observed:
    """The story after its end, with everything still running.

    Attributes:
        pairs: by name (`system`, or a suite of Debian), the servers that watched.
        started: unix seconds; all that was seen came after it.
    """

    scenario: Scenario
    pairs: dict[str, Pair]
    started: float

    @property
    def pair(self) -> Pair:
        """The oldest version that is there."""
        return next(iter(self.pairs.values()))


@pytest.fixture(scope="session")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """The daemon, all of its Prometheus servers and what they saw, after the story."""
    found = [p for name in (SYSTEM, *SUITES) if (p := programs(name)).complete]
    if not found:
        pytest.skip(MISSING[SYSTEM])
    folder = tmp_path_factory.mktemp("observability")
    with ExitStack() as stack:
        inbox = Inbox()
        stack.callback(inbox.close)
        scenario = stack.enter_context(Scenario(folder / "daemon"))
        pairs = {p.name: stack.enter_context(Pair(p, folder / p.name, scenario.target, inbox)) for p in found}
        play(scenario, list(pairs.values()))
        yield Observed(scenario, pairs, scenario.started)


@pytest.fixture(params=[SYSTEM, *SUITES])
def pair(request: pytest.FixtureRequest, observed: Observed) -> Pair:
    """The servers of each version in turn; those that are not there skip."""
    if request.param not in observed.pairs:
        pytest.skip(MISSING[request.param])
    return observed.pairs[request.param]
