"""What is deployed: the image, compose.yaml and the Kubernetes manifests. No container is started here."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from drift_monitor.cli import main
from drift_monitor.config.file import load
from drift_monitor.service.guard import OPEN

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
CRDS = {"ServiceMonitor", "PrometheusRule", "Kustomization"}  # the schemas of Kubernetes itself do not have these
UID = 10001


def documents(text):
    return list(YAML(typ="safe").load_all(text))


def document(path):
    [found] = documents(path.read_text("utf-8"))
    return found


RESOURCES = [found for path in MANIFESTS for found in documents(path.read_text("utf-8"))]
COMPOSE = document(ROOT / "compose.yaml")
each_service = pytest.mark.parametrize("service", COMPOSE["services"].values(), ids=COMPOSE["services"])


def resource(kind, name="drift-monitor"):
    [found] = [r for r in RESOURCES if r["kind"] == kind and r["metadata"]["name"] == name]
    return found


def exported(capsys, *arguments):
    assert main(["export", *arguments]) == 0
    return capsys.readouterr().out


# -- the image -------------------------------------------------------------------------------------


def instructions():
    """(instruction, rest) of each line of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def test_hadolint_has_nothing_to_say():
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [str(hadolint), "--failure-threshold", "style", str(ROOT / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_base_is_a_patch_version():
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base in bases)


def test_it_does_not_run_as_root():
    users = [rest for word, rest in instructions() if word == "USER"]
    assert users == [f"{UID}:{UID}"]
    assert f"--uid {UID} " in DOCKERFILE


def test_nothing_is_fetched_and_no_secret_is_kept():
    assert "ADD" not in {word for word, _ in instructions()}
    kept = " ".join(rest for word, rest in instructions() if word in {"ENV", "ARG"})
    assert not re.search(r"token|secret|password", kept, re.IGNORECASE)


def test_the_health_check_needs_no_token():
    [check] = [rest for word, rest in instructions() if word == "HEALTHCHECK"]
    assert re.findall(r"http://127\.0\.0\.1:9877(/[^']*)", check) == ["/-/healthy"]
    assert "/-/healthy" in OPEN


def test_all_that_is_copied_is_there_and_let_through():
    let_through = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    assert sorted(copied) == sorted(let_through)
    assert all((ROOT / source).exists() for source in copied)


def test_the_container_gets_the_versions_of_the_lock_file():
    def pins(path):
        return dict(re.findall(r"^([\w.-]+)==([^ ]+)", path.read_text("utf-8"), re.MULTILINE))

    runtime, whole = pins(DEPLOY / "requirements.lock"), pins(ROOT / "requirements.lock")
    assert runtime.items() <= whole.items()
    assert not runtime.keys() & {"pytest", "mypy", "ruff", "hatchling", "hypothesis"}


# -- compose.yaml ----------------------------------------------------------------------------------


@each_service
def test_a_service_can_do_little_harm(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@each_service
def test_an_image_is_built_here_or_of_one_version(service):
    assert "build" in service or re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])


@each_service
def test_what_is_mounted_is_there(service):
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])


def test_secrets_are_made_and_never_committed(tmp_path):
    files = {each["file"] for each in COMPOSE["secrets"].values()}
    script = shutil.copy(DEPLOY / "compose" / "secrets.sh", tmp_path)
    seen = []
    for _ in range(2):  # the second time nothing is replaced
        subprocess.run(["sh", script], check=True, capture_output=True, timeout=60)
        seen.append({f"deploy/compose/secrets/{p.name}": p.read_text() for p in (tmp_path / "secrets").iterdir()})
    assert set(seen[0]) == files
    assert all(re.fullmatch("[0-9a-f]{48}", text) for text in seen[0].values())
    assert seen[0] == seen[1]
    assert "/deploy/compose/secrets/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_the_composed_daemon_has_a_right_configuration():
    config = load(DEPLOY / "compose" / "drift-monitor.yaml")
    assert f"/run/secrets/{COMPOSE['services']['drift-monitor']['secrets'][0]}" == str(config.server.token_file)
    mounts = [volume.split(":")[1] for volume in COMPOSE["services"]["drift-monitor"]["volumes"]]
    assert str(config.state) in mounts
    assert str(config.monitors["flight-delay"].reference) in mounts


def test_the_composed_prometheus_scrapes_as_the_command_says(capsys):
    token = "/run/secrets/drift-monitor-token"
    arguments = ("--target", "drift-monitor:9877", "--token-file", token, "--interval", "15s")
    [jobs] = documents(exported(capsys, "scrape-config", *arguments))
    assert document(DEPLOY / "compose" / "prometheus.yml")["scrape_configs"] == jobs["scrape_configs"]


def test_the_composed_grafana_is_provisioned_as_the_command_says(capsys, tmp_path):
    asked = (
        "--prometheus",
        "http://prometheus:9090",
        "--public-url",
        "http://127.0.0.1:9877",
        "--interval",
        "15s",
    )
    exported(capsys, "dashboards", "--to", str(tmp_path), *asked, "--path", "/var/lib/grafana-dashboards")
    written = tmp_path / "provisioning"
    for path in written.rglob("*.yaml"):
        committed = DEPLOY / "compose" / "grafana" / path.relative_to(written)
        assert committed.read_text("utf-8") == path.read_text("utf-8"), f"write {committed} anew: deploy/README.md"


# -- Kubernetes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.25", kubernetes_validate.latest_version()])
def test_the_manifests_fit_the_schemas_of_kubernetes(version, capsys):
    maps = documents(exported(capsys, "dashboards", "--kubernetes"))
    checked = [r for r in [*RESOURCES, *maps] if r["kind"] not in CRDS]
    assert len(checked) >= 10
    for each in checked:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_config_map_is_small_enough_to_apply(capsys):
    for each in documents(exported(capsys, "dashboards", "--kubernetes")):
        [text] = each["data"].values()
        assert len(text) < 250_000, "kubectl keeps a copy in an annotation of at most 256 KiB"


def test_everything_is_listed():
    [kustomization] = [r for r in RESOURCES if r["kind"] == "Kustomization"]
    assert {*kustomization["resources"], "kustomization.yaml"} == {path.name for path in MANIFESTS}


def test_one_daemon_without_rights():
    deployment = resource("Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    pod = deployment["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == UID
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in OPEN
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_what_is_named_is_there():
    pod = resource("Deployment")["spec"]["template"]["spec"]
    claims = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert claims == {r["metadata"]["name"] for r in RESOURCES if r["kind"] == "PersistentVolumeClaim"}
    labels = resource("Deployment")["spec"]["template"]["metadata"]["labels"]
    service = resource("Service")
    assert service["spec"]["selector"].items() <= labels.items()
    [port] = service["spec"]["ports"]
    assert port["targetPort"] in {p["name"] for p in pod["containers"][0]["ports"]}
    monitor = resource("ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = monitor["endpoints"]
    assert endpoint["port"] == port["name"]
    secret = endpoint["authorization"]["credentials"]
    [volume] = [v["secret"] for v in pod["volumes"] if "secret" in v]
    assert secret["name"] == volume["secretName"]


def test_the_job_that_the_rules_look_for_is_the_service():
    assert resource("Service")["metadata"]["name"] == "drift-monitor"


def test_the_configuration_in_the_config_map_is_right(tmp_path):
    path = tmp_path / "drift-monitor.yaml"
    path.write_text(resource("ConfigMap")["data"]["drift-monitor.yaml"], "utf-8")
    config = load(path)
    [container] = resource("Deployment")["spec"]["template"]["spec"]["containers"]
    mounts = {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}
    assert mounts[str(config.state)] is False
    assert str(config.server.token_file.parent) in mounts
    assert "/data" in mounts
    assert str(config.monitors["flight-delay"].reference).startswith("/data/")
