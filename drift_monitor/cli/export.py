"""`drift-monitor export`: the rules, dashboards and settings for Prometheus, Alertmanager and Grafana.

What is written are the files of `alerts/` and `grafana/` themselves, comments and all, with the names in them
replaced; an installed package carries copies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from textwrap import indent
from typing import Any, Final, TypeVar

import click

import drift_monitor
from drift_monitor.cli.options import OK, config_option, examples

JOB: Final = "drift-monitor"
RULES: Final = "drift-monitor.rules.yml"
RUNBOOKS: Final = "https://drift-monitor.example"  # in the committed rules
TOKEN: Final = "/etc/prometheus/drift-monitor.token"  # noqa: S105 - where it is, not what
DASHBOARDS: Final = "/var/lib/grafana/dashboards/drift-monitor"
_DATASOURCE, _PROVIDER = "datasources/prometheus.yaml", "dashboards/drift-monitor.yaml"
_F = TypeVar("_F", bound=Callable[..., Any])


def folder(name: str) -> Path:
    """Where the files of `alerts` or `grafana` are: in the repository, or else in the installed package.

    Raises:
        ClickException: neither is there.
    """
    package = Path(drift_monitor.__file__).parent
    for root in (package.parent, package / "exported"):
        if (root / "alerts" / RULES).is_file() and (root / name).is_dir():
            return root / name
    raise click.ClickException(f"the files of {name} are missing: install drift-monitor again")


def read(name: str, path: str) -> str:
    """The text of one of these files."""
    return (folder(name) / path).read_text("utf-8")


def replaced(text: str, names: Mapping[str, str]) -> str:
    """The text with names replaced, each of which has to be there.

    Example:
        >>> replaced("up{job='a'}", {"'a'": "'b'"})
        "up{job='b'}"

    Raises:
        ClickException: the text does not have one of them.
    """
    for old, new in names.items():
        if old not in text:
            raise click.ClickException(f"{old!r} is not in the file any more: install drift-monitor again")
        text = text.replace(old, new)
    return text


# -- options ---------------------------------------------------------------------------------------


def _matching(pattern: str, what: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that takes one text, or several, of a form that is safe in YAML, PromQL and JSON."""

    def check(_ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        for text in value if isinstance(value, tuple) else [value]:
            if text is not None and not re.fullmatch(pattern, text):
                raise click.BadParameter(f"{text!r} is not {what}", param=param)
        return value

    return check


_a_name = _matching(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]*", "a name of letters, digits and _ . : / -")
_a_resource = _matching(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "a Kubernetes name such as drift-monitor")
_an_address = _matching(r"[A-Za-z0-9_.\[\]:-]+:\d{1,5}", "host:port")
_a_url = _matching(r"https?://[^\s\"'\\{}|<>#]+", "a URL that starts with http:// or https://")
_a_duration = _matching(r"[1-9]\d*(ms|s|m|h)", "a duration such as 30s")
_a_path = _matching(r"/[A-Za-z0-9_./@+-]*", "an absolute path without spaces and quotes")


def _destination(function: _F) -> _F:
    """`--to FOLDER` and `--force`."""
    to: Callable[[_F], _F] = click.option(
        "--to", "folder_", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False), help="Write here."
    )
    force: Callable[[_F], _F] = click.option("--force", is_flag=True, help="Replace files that are there.")
    return to(force(function))


def _kubernetes(function: _F) -> _F:
    """`--kubernetes` and `--namespace`."""
    kubernetes: Callable[[_F], _F] = click.option(
        "--kubernetes", is_flag=True, help="As a Kubernetes resource instead."
    )
    namespace: Callable[[_F], _F] = click.option(
        "--namespace", metavar="NAME", callback=_a_resource, help="Of the Kubernetes resource."
    )
    return kubernetes(namespace(function))


def _write(files: Mapping[str, str], to: Path | None, *, force: bool) -> None:
    """Print a single file, or write all of them to a folder, all or none where some exist."""
    if to is None:
        click.echo("\n---\n".join(text.rstrip("\n") for text in files.values()))
        return
    there = [str(to / name) for name in files if (to / name).exists()]
    if there and not force:
        raise click.ClickException(f"{', '.join(there)} exists already: give --force to replace it")
    for name, text in files.items():
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        click.echo(str(path))


# -- commands --------------------------------------------------------------------------------------


@click.group(
    epilog=examples(
        "drift-monitor export scrape-config",
        "drift-monitor export rules --runbooks https://wiki.example/drift-monitor --to /etc/prometheus",
        "drift-monitor export alertmanager --oncall https://oncall.example/alerts",
        "drift-monitor export dashboards --prometheus http://prometheus:9090 --to grafana",
    )
)
def export() -> None:
    """Write rules, dashboards and settings for Prometheus, Alertmanager and Grafana.

    To the screen, or with --to into a folder. docs/observability.md tells where they belong.
    """


@export.command(
    epilog=examples(
        "drift-monitor export rules > /etc/prometheus/drift-monitor.rules.yml",
        "drift-monitor export rules --job ml/drift --runbooks https://wiki.example/drift-monitor",
        "drift-monitor export rules --kubernetes --namespace monitoring | kubectl apply -f -",
    )
)
@click.option("--job", default=JOB, show_default=True, callback=_a_name, help="The scrape job's name.")
@click.option(
    "--runbooks",
    metavar="URL",
    default=RUNBOOKS,
    show_default=True,
    callback=_a_url,
    help="Where docs/runbooks/ can be read: what stands before that path.",
)
@_kubernetes
@_destination
def rules(
    job: str, runbooks: str, folder_: Path | None, namespace: str | None, *, kubernetes: bool, force: bool
) -> int:
    """Recording and alerting rules for Prometheus 2.42 or newer."""
    names = {f'job="{JOB}"': f'job="{job}"', RUNBOOKS: runbooks.rstrip("/")}
    text = replaced(read("alerts", RULES), names)
    if kubernetes:
        text = resource(
            "monitoring.coreos.com/v1", "PrometheusRule", JOB, namespace, f"spec:\n{indent(text, '  ')}"
        )
    _write({RULES: text}, folder_, force=force)
    return OK


@export.command(
    epilog=examples(
        "drift-monitor export alertmanager --oncall https://oncall.example/a --heartbeat https://hc.example/ping"
    )
)
@click.option("--oncall", metavar="URL", callback=_a_url, help="Webhook for critical and warning.")
@click.option("--tickets", metavar="URL", callback=_a_url, help="Webhook for info.")
@click.option("--heartbeat", metavar="URL", callback=_a_url, help="Webhook of a service that misses the watchdog.")
@_destination
def alertmanager(
    oncall: str | None, tickets: str | None, heartbeat: str | None, folder_: Path | None, *, force: bool
) -> int:
    """Routes and inhibitions for Alertmanager 0.25 or newer; an address that is not given stays a placeholder."""
    asked = {
        "https://oncall.example/alerts": oncall,
        "https://tickets.example/alerts": tickets,
        "https://heartbeat.example/drift-monitor": heartbeat,
    }
    text = replaced(read("alerts", "alertmanager.yml"), {old: new for old, new in asked.items() if new})
    _write({"alertmanager.yml": text}, folder_, force=force)
    return OK


@export.command(
    "scrape-config",
    epilog=examples(
        "drift-monitor export scrape-config --config drift-monitor.yaml",
        "drift-monitor export scrape-config --target drift-1:9877 --target drift-2:9877 --token-file " + TOKEN,
        "drift-monitor export scrape-config --target drift:9877 --features",
    ),
)
@config_option
@click.option(
    "--target",
    "targets",
    metavar="HOST:PORT",
    multiple=True,
    callback=_an_address,
    help="Of a daemon, repeatable.",
)
@click.option("--job", default=JOB, show_default=True, callback=_a_name, help="The scrape job's name.")
@click.option("--token-file", metavar="PATH", callback=_a_path, help="Bearer token, on Prometheus' machine.")
@click.option("--interval", default="30s", show_default=True, callback=_a_duration, help="Between two scrapes.")
@click.option("--https", is_flag=True, help="A proxy before the daemon speaks TLS.")
@click.option("--features", is_flag=True, help="A second job for the features of each monitor.")
@_destination
def scrape_config(
    config_path: Path,
    targets: tuple[str, ...],
    job: str,
    token_file: str | None,
    interval: str,
    folder_: Path | None,
    *,
    https: bool,
    features: bool,
    force: bool,
) -> int:
    """The scrape job for Prometheus.

    Without --target, address and token are those of the configuration. With --features give the monitors
    `metrics.features: none`, so that no series is scraped twice.
    """
    if not targets:
        targets, guarded = _listening(config_path)
        token_file = token_file or (TOKEN if guarded else None)
    _write({"scrape-config.yml": scrape_jobs(targets, job, token_file, interval, https=https, features=features)},
           folder_, force=force)  # fmt: skip
    return OK


@export.command(
    epilog=examples(
        "drift-monitor export dashboards --to grafana",
        "drift-monitor export dashboards --to grafana --prometheus http://prometheus:9090 --interval 15s",
        "drift-monitor export dashboards --kubernetes --namespace monitoring | kubectl apply -f -",
    )
)
@click.option("--prometheus", metavar="URL", callback=_a_url, help="As Grafana reaches it.")
@click.option("--interval", default="30s", show_default=True, callback=_a_duration, help="Between two scrapes.")
@click.option("--public-url", metavar="URL", callback=_a_url, help="`server.public_url`, for links to reports.")
@click.option(
    "--path",
    default=DASHBOARDS,
    show_default=True,
    callback=_a_path,
    help="Where Grafana will find the JSON files.",
)
@_kubernetes
@_destination
def dashboards(
    prometheus: str | None,
    interval: str,
    public_url: str | None,
    path: str,
    folder_: Path | None,
    namespace: str | None,
    *,
    kubernetes: bool,
    force: bool,
) -> int:
    """Dashboards and provisioning for Grafana: FOLDER/dashboards and FOLDER/provisioning.

    With --kubernetes ConfigMaps that Grafana's sidecar collects by the label grafana_dashboard.
    """
    boards = {
        file.name: file.read_text("utf-8") for file in sorted((folder("grafana") / "dashboards").glob("*.json"))
    }
    if kubernetes:
        maps = {name: _config_map(name, text, namespace) for name, text in boards.items()}
        _write({f"{Path(name).stem}.yaml": text for name, text in maps.items()}, folder_, force=force)
        return OK
    if folder_ is None:
        raise click.UsageError("give --to FOLDER: there are several files")
    asked = {"http://localhost:9090": prometheus, "http://localhost:9877": public_url and public_url.rstrip("/")}
    names = {old: new for old, new in asked.items() if new} | {"timeInterval: 30s": f"timeInterval: {interval}"}
    files = {f"dashboards/{name}": text for name, text in boards.items()}
    files[f"provisioning/{_DATASOURCE}"] = replaced(read("grafana", f"provisioning/{_DATASOURCE}"), names)
    files[f"provisioning/{_PROVIDER}"] = replaced(read("grafana", f"provisioning/{_PROVIDER}"), {DASHBOARDS: path})
    _write(files, folder_, force=force)
    return OK


# -- what is made here -----------------------------------------------------------------------------


def _listening(config_path: Path) -> tuple[tuple[str, ...], bool]:
    """Where the daemon of a configuration listens, and whether it wants a token."""
    from drift_monitor.config.file import load

    server = load(config_path).server
    host, port = server.address
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared with, not listened on
        raise click.UsageError(f"the daemon listens everywhere ({server.listen}): give --target HOST:{port}")
    return (server.listen,), server.token_file is not None


def scrape_jobs(
    targets: Iterable[str], job: str, token_file: str | None, interval: str, *, https: bool, features: bool
) -> str:
    """The `scrape_configs` of a daemon, or of several.

    Example:
        >>> print(scrape_jobs(["127.0.0.1:9877"], "drift-monitor", None, "30s", https=False, features=False))
        scrape_configs:
          - job_name: drift-monitor
            scrape_interval: 30s
            static_configs:
              - targets: ["127.0.0.1:9877"]
        <BLANKLINE>
    """
    targets = list(targets)
    authorization = f"authorization: {{type: Bearer, credentials_file: {token_file}}}\n" if token_file else ""
    scheme = "scheme: https\n" if https else ""
    listed = ", ".join(f'"{target}"' for target in targets)
    common = f"scrape_interval: {interval}\n{scheme}{authorization}"
    text = f"scrape_configs:\n  - job_name: {job}\n"
    text += indent(f"{common}static_configs:\n  - targets: [{listed}]\n", "    ")
    if features:
        text += f"  - job_name: {job}-features\n"
        discovered = "".join(
            f"  - url: {'https' if https else 'http'}://{target}/-/sd/prometheus\n" + indent(authorization, "    ")
            for target in targets
        )
        text += indent(
            f"{common}honor_labels: true  # the page has the label `monitor` as well\n"
            f"http_sd_configs:\n{discovered}"
            f"metric_relabel_configs:  # dashboards and rules look for one job\n"
            f"  - target_label: job\n    replacement: {job}\n",
            "    ",
        )
    return text


def resource(
    api: str, kind: str, name: str, namespace: str | None, rest: str, labels: Mapping[str, str] = {}
) -> str:
    """A Kubernetes resource: its head, and the rest as it is."""
    marks = {"app.kubernetes.io/name": JOB, **labels}
    head = [f"apiVersion: {api}", f"kind: {kind}", "metadata:", f"  name: {name}"]
    head += [f"  namespace: {namespace}"] if namespace else []
    head += ["  labels:", *(f'    {key}: "{value}"' for key, value in marks.items())]
    return "\n".join(head) + f"\n{rest}"


def _config_map(name: str, text: str, namespace: str | None) -> str:
    data = f"data:\n  {name}: |\n{indent(text, '    ')}"
    return resource("v1", "ConfigMap", Path(name).stem, namespace, data, {"grafana_dashboard": "1"})
