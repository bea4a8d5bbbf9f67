"""`drift-monitor export`: the committed files under one's own names, and nothing that could break out of them."""

import json
import shutil
import subprocess

import pytest
from ruamel.yaml import YAML

from drift_monitor.cli import main
from drift_monitor.cli.export import folder


def parsed(text):
    return list(YAML(typ="safe").load_all(text))


def exported(capsys, *arguments):
    assert main(["export", *arguments]) == 0
    return capsys.readouterr().out


@pytest.fixture
def config(tmp_path):
    def write(server):
        monitor = {"reference": "reference", "source": {"path": "live.parquet"}, "schedule": {"every": "1h"}}
        path = tmp_path / "drift-monitor.yaml"
        path.write_text(json.dumps({"server": server, "monitors": {"m": monitor}}))  # JSON is YAML
        return str(path)

    return write


def test_rules_are_those_committed(capsys):
    assert exported(capsys, "rules") == (folder("alerts") / "drift-monitor.rules.yml").read_text("utf-8")


def test_rules_with_names_of_ones_own(capsys):
    text = exported(capsys, "rules", "--job", "ml/drift", "--runbooks", "https://wiki.example/drift/")
    [document] = parsed(text)
    alerts = {rule["alert"]: rule for rule in document["groups"][0]["rules"] if "alert" in rule}
    assert alerts["DriftMonitorDown"]["expr"] == 'up{job="ml/drift"} == 0 or absent(up{job="ml/drift"})'
    for name, alert in alerts.items():
        assert alert["annotations"]["runbook_url"] == f"https://wiki.example/drift/docs/runbooks/{name}.md"
    assert 'job="drift-monitor"' not in text


def test_rules_as_a_kubernetes_resource(capsys):
    [plain] = parsed(exported(capsys, "rules"))
    [wrapped] = parsed(exported(capsys, "rules", "--kubernetes", "--namespace", "monitoring"))
    assert (wrapped["apiVersion"], wrapped["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert wrapped["metadata"]["namespace"] == "monitoring"
    assert wrapped["spec"] == plain


def test_addresses_of_receivers(capsys):
    text = exported(
        capsys, "alertmanager", "--oncall", "https://a.example/1", "--heartbeat", "https://b.example/2"
    )
    [document] = parsed(text)
    urls = {r["name"]: r["webhook_configs"][0]["url"] for r in document["receivers"]}
    assert urls == {
        "oncall": "https://a.example/1",
        "tickets": "https://tickets.example/alerts",
        "heartbeat": "https://b.example/2",
    }


def test_a_scrape_job_of_a_configuration(capsys, config):
    [document] = parsed(exported(capsys, "scrape-config", "--config", config({"listen": "127.0.0.1:1234"})))
    assert document["scrape_configs"] == [
        {
            "job_name": "drift-monitor",
            "scrape_interval": "30s",
            "static_configs": [{"targets": ["127.0.0.1:1234"]}],
        }
    ]


def test_a_scrape_job_of_a_guarded_daemon(capsys, config):
    path = config({"listen": "10.0.0.1:9877", "token_file": "token"})
    [document] = parsed(exported(capsys, "scrape-config", "--config", path))
    assert document["scrape_configs"][0]["authorization"] == {
        "type": "Bearer",
        "credentials_file": "/etc/prometheus/drift-monitor.token",
    }


def test_a_daemon_that_listens_everywhere_needs_an_address(capsys, config):
    path = config({"listen": "0.0.0.0:9877", "token_file": "token"})
    assert main(["export", "scrape-config", "--config", path]) == 64
    assert "give --target HOST:9877" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_the_scrape_jobs(capsys, tmp_path):
    (tmp_path / "token").write_text("x")
    arguments = ("--target", "a:1", "--target", "[::1]:2", "--token-file", str(tmp_path / "token"), "--https")
    text = exported(capsys, "scrape-config", *arguments, "--features", "--interval", "15s")
    (tmp_path / "prometheus.yml").write_text(text)
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    plain, features = parsed(text)[0]["scrape_configs"]
    assert features["job_name"] == "drift-monitor-features"
    assert features["http_sd_configs"][1]["url"] == "https://[::1]:2/-/sd/prometheus"
    assert features["http_sd_configs"][1]["authorization"] == plain["authorization"]


def test_dashboards_and_where_grafana_finds_them(capsys, tmp_path):
    asked = ("--prometheus", "http://prom:9090", "--interval", "15s", "--public-url", "https://drift.example/")
    exported(capsys, "dashboards", "--to", str(tmp_path), *asked, "--path", "/srv/boards")
    committed = sorted((folder("grafana") / "dashboards").glob("*.json"))
    assert len(committed) >= 4
    for file in committed:
        assert (tmp_path / "dashboards" / file.name).read_text("utf-8") == file.read_text("utf-8")
    [sources] = parsed((tmp_path / "provisioning/datasources/prometheus.yaml").read_text("utf-8"))
    [source] = sources["datasources"]
    assert source["url"] == "http://prom:9090"
    assert source["jsonData"]["timeInterval"] == "15s"
    assert source["jsonData"]["exemplarTraceIdDestinations"][0]["url"].startswith("https://drift.example/reports/")
    [providers] = parsed((tmp_path / "provisioning/dashboards/drift-monitor.yaml").read_text("utf-8"))
    assert providers["providers"][0]["options"]["path"] == "/srv/boards"


def test_dashboards_as_config_maps(capsys):
    maps = parsed(exported(capsys, "dashboards", "--kubernetes"))
    committed = {
        f.name: json.loads(f.read_text("utf-8")) for f in (folder("grafana") / "dashboards").glob("*.json")
    }
    assert {m["kind"] for m in maps} == {"ConfigMap"}
    assert {name: json.loads(text) for m in maps for name, text in m["data"].items()} == committed
    assert {m["metadata"]["labels"]["grafana_dashboard"] for m in maps} == {"1"}


def test_dashboards_are_several_files(capsys):
    assert main(["export", "dashboards"]) == 64
    assert "give --to FOLDER" in capsys.readouterr().err


def test_a_file_that_is_there_is_kept(capsys, tmp_path):
    exported(capsys, "rules", "--to", str(tmp_path))
    path = tmp_path / "drift-monitor.rules.yml"
    path.write_text("mine")
    assert main(["export", "rules", "--to", str(tmp_path)]) == 1
    assert "give --force to replace it" in capsys.readouterr().err
    assert path.read_text() == "mine"
    exported(capsys, "rules", "--to", str(tmp_path), "--force")
    assert path.read_text() != "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ["rules", "--job", 'x"} or vector(1) #'],
        ["rules", "--runbooks", "javascript:alert(1)"],
        ["rules", "--runbooks", "https://x.example/\n- alert: Mine"],
        ["rules", "--kubernetes", "--namespace", "Not_a_name"],
        ["alertmanager", "--oncall", "https://x.example/ send_resolved: false"],
        ["scrape-config", "--target", "host"],
        ["scrape-config", "--target", 'host:1", "other:2'],
        ["scrape-config", "--target", "host:1", "--token-file", "/a}: b"],
        ["scrape-config", "--target", "host:1", "--interval", "often"],
        ["dashboards", "--to", "x", "--path", "relative"],
    ],
)
def test_what_cannot_be_written_safely_is_refused(capsys, arguments):
    assert main(["export", *arguments]) == 64
    assert " is not " in capsys.readouterr().err
