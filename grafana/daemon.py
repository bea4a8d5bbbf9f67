"""The daemon itself: is it up, does it get through its work, do its messages arrive."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, stat, table, timeseries
from panels import (
    alerts,
    bars_over_time,
    cells,
    durations,
    lines,
    page,
    place,
    properties,
    query,
    tile,
    to_page,
    variable,
)
from queries import DAEMON, metric
from words import MAY_WAIT, PLAIN, RUNS, SHOULD_BE_ZERO, TAKEN, UP

PHASES = f'{DAEMON}, phase=~"$phase"'
RATE = "[$__rate_interval]"


def tiles() -> list[stat.Panel]:
    """Is it well now."""
    missed = metric("runs_missed_total", DAEMON)
    return [
        tile(
            "Scraped",
            "Whether Prometheus can scrape the daemons; down when it cannot scrape one of them.",
            f"min(up{{{DAEMON}}})",
            PLAIN,
            words=[UP],
        ),
        tile(
            "Configuration",
            "Whether the configuration on disk is the one that runs. Refused: the daemon goes on with the one"
            " before, and a restart would fail.",
            f"min({metric('config_last_reload_successful', DAEMON)})",
            PLAIN,
            words=[TAKEN],
        ),
        tile(
            "Scheduler",
            "Whether due windows are entered.",
            f"min({metric('scheduler_running', DAEMON)})",
            PLAIN,
            words=[RUNS],
        ),
        tile(
            "Windows waiting",
            "Windows that are due and not being evaluated yet. A number that stays says that runs take longer"
            " than the schedule leaves them.",
            f"sum({metric('runs_due', DAEMON)})",
            MAY_WAIT,
        ),
        tile(
            "Windows missed",
            "Windows of the time range that were not evaluated because the daemon was down.",
            f"sum(round(increase({missed}[$__range])))",
            MAY_WAIT,
        ),
        tile(
            "Messages given up",
            "Messages that used up all attempts or were refused for good. They wait to be sent again by hand.",
            f"sum({metric('outbox_dead_messages', DAEMON)})",
            SHOULD_BE_ZERO,
            none="no receivers",
        ),
        tile(
            "Series left out",
            "Per-feature series that the budget `metrics.max_series` cut. Verdicts, messages and monitor-level"
            " series are not affected.",
            f"sum({metric('metrics_suppressed_series', DAEMON)})",
            MAY_WAIT,
            unit="short",
        ),
        tile(
            "Memory",
            "Resident memory of the daemons together. Checks run in children, which are not counted here.",
            f"sum(process_resident_memory_bytes{{{DAEMON}}})",
            PLAIN,
            unit="bytes",
            decimals=0,
        ),
    ]


def daemons() -> table.Panel:
    """A row a daemon."""
    by = "job, instance"
    panel = cells(
        "Daemons",
        "One row a daemon: what runs, since when, and when its configuration was last taken on.",
        {
            "build": f"max by ({by}, version, python_version) ({metric('build_info', DAEMON)})",
            "up": f"max by ({by}) (up{{{DAEMON}}})",
            "monitors": f"count by ({by}) ({metric('monitor_info', DAEMON)})",
            "started": f"1000 * max by ({by}) (process_start_time_seconds{{{DAEMON}}})",
            "reloaded": f"1000 * max by ({by}) ({metric('config_last_reload_success_timestamp_seconds', DAEMON)})",
        },
        {
            "instance": "Daemon",
            "job": "Job",
            "Value #up": "Scraped",
            "version": "Version",
            "python_version": "Python",
            "Value #monitors": "Monitors",
            "Value #started": "Started",
            "Value #reloaded": "Configuration loaded",
        },
        ["Value #build"],
        keep=("job", "instance"),
    )
    panel.override_by_name("Scraped", properties(mappings=[UP], custom__cellOptions={"type": "color-text"}))
    panel.override_by_name("Monitors", properties(decimals=0))
    for name in ("Started", "Configuration loaded"):
        panel.override_by_name(name, properties(unit="dateTimeFromNow"))
    return panel


def phase_means() -> timeseries.Panel:
    """Where the time goes."""
    spent = metric("run_duration_seconds_sum", PHASES)
    runs = metric("run_duration_seconds_count", PHASES)
    return lines(
        "Mean time of a phase",
        "Where the time of a run goes. A gap is a stretch without runs.",
        [
            query(
                "A",
                f"sum by (phase) (rate({spent}{RATE})) / (sum by (phase) (rate({runs}{RATE})) > 0)"
                f" or 0 * sum by (phase) (rate({runs}{RATE}))",
                "{{phase}}",
            )
        ],
        unit="s",
    )


def evaluation() -> list[tuple[int, object]]:
    """Does it get through its work."""
    return [
        (
            8,
            bars_over_time(
                "Runs",
                "Runs an hour by monitor, whatever the verdict.",
                [
                    query(
                        "A", f"3600 * sum by (monitor) (rate({metric('runs_total', DAEMON)}{RATE}))", "{{monitor}}"
                    )
                ],
                unit="suffix: / h",
            ),
        ),
        (
            8,
            lines(
                "Windows waiting and in progress",
                "Windows that are due, and windows being evaluated now.",
                [
                    query("A", f"sum by (instance) ({metric('runs_due', DAEMON)})", "waiting at {{instance}}"),
                    query(
                        "B",
                        f"sum by (instance) ({metric('runs_in_progress', DAEMON)})",
                        "in progress at {{instance}}",
                    ),
                ],
                unit="none",
                soft_maximum=4,
                decimals=0,
            ),
        ),
        (
            8,
            lines(
                "Time until the next window",
                "How long until each monitor's next window is due. Below 0 the window is late.",
                [
                    query(
                        "A",
                        f"min by (monitor) ({metric('scheduler_next_run_timestamp_seconds', DAEMON)}) - time()",
                        "{{monitor}}",
                    )
                ],
                unit="s",
                slopes=True,
                minimum=None,
            ),
        ),
    ]


def delivery() -> tuple[list[tuple[int, object]], list[tuple[int, object]]]:
    """Do its messages arrive."""
    asked = metric("webhook_requests_total", DAEMON)
    failed = metric("webhook_request_failures_total", DAEMON)
    took = metric("webhook_request_duration_seconds_bucket", DAEMON)
    oldest = metric("outbox_oldest_message_timestamp_seconds", DAEMON)
    waiting = metric("outbox_messages", DAEMON)
    taken = metric("webhook_last_success_timestamp_seconds", DAEMON)
    none = "no receivers"
    first = [
        (
            8,
            bars_over_time(
                "Attempts to deliver",
                "Attempts an hour: taken by the receiver, and failed by reason.",
                [
                    query(
                        "A",
                        f"3600 * clamp_min(sum by (receiver) (rate({asked}{RATE}))"
                        f" - sum by (receiver) (rate({failed}{RATE})), 0)",
                        "{{receiver}}: taken",
                    ),
                    query(
                        "B",
                        f"3600 * sum by (receiver, reason) (rate({failed}{RATE})) > 0"
                        f" or 3600 * sum by (receiver) (rate({failed}{RATE}))",
                        "{{receiver}}: failed {{reason}}",
                    ),
                ],
                unit="suffix: / h",
            ),
        ),
        (
            8,
            lines(
                "Time of an attempt",
                "Nineteen of twenty attempts took no longer. A gap is a stretch without attempts.",
                [
                    query(
                        "A",
                        f"histogram_quantile(0.95, sum by (receiver, le) (rate({took}{RATE})))",
                        "{{receiver}}",
                    )
                ],
                listed=True,
                unit="s",
                none="no attempts",
            ),
        ),
        (
            8,
            lines(
                "Since the last message taken",
                "Time since each receiver last took a message. Long is no fault by itself: there may be"
                " nothing to say.",
                [
                    query(
                        "A",
                        f"time() - max by (receiver) ({taken} > 0)",
                        "{{receiver}}",
                    )
                ],
                listed=True,
                unit="s",
                slopes=True,
                none="none was taken",
            ),
        ),
    ]
    second = [
        (
            8,
            lines(
                "Messages waiting",
                "Messages in the outbox by receiver. A slow receiver delays nobody but itself.",
                [query("A", f"sum by (receiver) ({waiting})", "{{receiver}}")],
                listed=True,
                unit="none",
                none=none,
                soft_maximum=4,
                decimals=0,
            ),
        ),
        (
            8,
            lines(
                "Age of the oldest message",
                "How long the oldest message has waited. After an hour four attempts have failed.",
                [
                    query(
                        "A",
                        f"max by (receiver) (time() - ({oldest} > 0) or 0 * {waiting})",
                        "{{receiver}}",
                    )
                ],
                listed=True,
                unit="s",
                slopes=True,
                none=none,
            ),
        ),
        (
            8,
            lines(
                "Messages given up",
                "Messages that used up all attempts or were refused for good, by receiver.",
                [query("A", f"sum by (receiver) ({metric('outbox_dead_messages', DAEMON)})", "{{receiver}}")],
                listed=True,
                unit="none",
                none=none,
                soft_maximum=4,
                decimals=0,
            ),
        ),
    ]
    return first, second


def process() -> list[tuple[int, object]]:
    """What it costs."""
    return [
        (
            6,
            lines(
                "Time of a scrape",
                "What Prometheus measures. Pages of metrics are rendered once a run and served from memory.",
                [query("A", f"scrape_duration_seconds{{{DAEMON}}}", "{{instance}}")],
                unit="s",
            ),
        ),
        (
            6,
            lines(
                "Samples of a scrape",
                "Series that a scrape brings. `metrics.features` and `metrics.max_series` bound it.",
                [query("A", f"scrape_samples_scraped{{{DAEMON}}}", "{{instance}}")],
                unit="short",
            ),
        ),
        (
            6,
            lines(
                "CPU",
                "Share of one core that the daemon's own process uses. Checks run in children, which are not"
                " counted.",
                [query("A", f"rate(process_cpu_seconds_total{{{DAEMON}}}{RATE})", "{{instance}}")],
                unit="percentunit",
            ),
        ),
        (
            6,
            lines(
                "Memory",
                "Resident memory of the daemon's own process. Checks run in children, which are not counted.",
                [query("A", f"process_resident_memory_bytes{{{DAEMON}}}", "{{instance}}")],
                unit="bytes",
            ),
        ),
    ]


def daemon() -> dashboard.Dashboard:
    """The daemon itself."""
    built = page(
        "daemon",
        "Daemon",
        "The daemon itself: is it up, does it get through its work, do its messages arrive, what does it cost.",
        [variable("phase", "Phase", metric("run_duration_seconds_bucket", DAEMON))],
    )
    built.link(to_page("Status", "${daemon_url}/"))
    built.annotation(alerts(DAEMON))
    buckets = metric("run_duration_seconds_bucket", PHASES)
    first, second = delivery()
    return place(
        built,
        (4, [(3, one) for one in tiles()]),
        (4, [(24, daemons())]),
        "Evaluation",
        (
            9,
            [
                (
                    12,
                    durations(
                        "Time of the chosen phases",
                        "How long the chosen phases of a run took: the darker, the more often. Choose one"
                        " phase above.",
                        f"sum by (le) (increase({buckets}{RATE}))",
                    ),
                ),
                (12, phase_means()),
            ],
        ),
        (8, evaluation()),
        "Delivery",
        (8, first),
        (8, second),
        "Process and scrape",
        (8, process()),
    )
