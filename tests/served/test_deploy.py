"""What is in `deploy/`: as far as it can be tried without a container engine."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from farebox.settings import Settings
from tests.conftest import debian_extract, debian_install, missing
from tests.gateway import Gateway
from tests.served.test_metrics import scraped
from tools.postgres import Cluster

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GRACE_SECONDS = Settings().grace_seconds


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def check_settings(names: dict[str, Any] | list[str]) -> None:
    known = {f"FAREBOX_{name.upper()}" for name in Settings.__struct_fields__} | {
        "OPENROUTER_API_KEY",
        "FAREBOX_CONFIG",
    }
    assert set(names) <= known


# The image


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in text.splitlines() if line.strip()]


def test_the_image_runs_as_nobody_in_particular_and_has_all_it_copies() -> None:
    stages = [value for name, value in instructions() if name == "FROM"]
    assert stages[-1] == "python:3.11-slim", "the last stage is a slim one, without what building needs"
    after = instructions()[[name for name, _ in instructions()].index("FROM", 1) :]
    assert [value for name, value in after if name == "USER"] == ["10001"]
    assert ("ENTRYPOINT", '["farebox"]') in after
    assert [name for name, _ in after][-2:] == ["ENTRYPOINT", "CMD"]
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, value in instructions():
        if name == "COPY" and not value.startswith("--from"):
            for source in shlex.split(value)[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch.fnmatch(source, pattern[1:]) for pattern in ignored), source
    variables = dict(pair.split("=", 1) for name, value in after if name == "ENV" for pair in shlex.split(value))
    check_settings([name for name in variables if name.startswith("FAREBOX_")])


def test_the_image_installs_what_make_serve_does() -> None:
    """`make serve` does the same in every run of the tests."""
    run = " ".join(value for name, value in instructions() if name == "RUN")
    makefile = (ROOT / "Makefile").read_text()
    for words in ("--require-hashes -r requirements/run.txt", "--no-deps --no-build-isolation"):
        assert words in run
        assert words in makefile


def test_the_images_health_is_what_the_gateway_says(gateway: Gateway) -> None:
    (health,) = [value for name, value in instructions() if name == "HEALTHCHECK"]
    command = json.loads(health[health.index("[") :])
    assert command[0] == "python"
    here = command[-1].replace(":8080", f":{gateway.port}")
    behind_a_proxy = {**os.environ, "http_proxy": "http://127.0.0.1:9"}
    assert subprocess.run([sys.executable, *command[1:-1], here], env=behind_a_proxy).returncode == 0
    gateway.stop()
    assert subprocess.run([sys.executable, *command[1:-1], here], stderr=subprocess.DEVNULL).returncode != 0


# Several containers on one machine


def test_the_composition_fits_together() -> None:
    composed = read("compose.yaml")
    services = composed["services"]
    fareboxes = [service for name, service in services.items() if name.startswith("farebox")]
    assert len(fareboxes) == 2
    for service in fareboxes:
        check_settings(service["environment"])
        assert (ROOT / service["build"]["dockerfile"]).exists()
        assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        assert int(service["stop_grace_period"].removesuffix("s")) > int(
            service["environment"]["FAREBOX_GRACE_SECONDS"]
        )
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    volumes = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    assert {name for name in volumes if not name.startswith(".")} == set(composed["volumes"])
    assert all((DEPLOY / name).exists() for name in volumes if name.startswith("."))
    assert len({service["volumes"][0] for service in fareboxes}) == 2, "each keeps its own spool"
    targets = read("prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"{name}:8080" for name in services if name.startswith("farebox")]
    options = " ".join(services["postgres"]["command"])
    assert "fsync=on" in options
    assert "synchronous_commit=on" in options


def test_the_composition_runs_under_its_settings(tmp_path: Path, postgres: Cluster) -> None:
    """The same environment, with a database and an address of this machine."""
    service = read("compose.yaml")["services"]["farebox-1"]
    url = postgres.new_database()
    environment = {name: str(value) for name, value in service["environment"].items()}
    given = {"FAREBOX_DATABASE_URL": url, "FAREBOX_METRICS_TOKEN": "a token", "OPENROUTER_API_KEY": ""}
    with Gateway(tmp_path, **{**environment, **given, "FAREBOX_SPOOL": str(tmp_path / "spool")}) as gateway:
        assert gateway.chat().status == 200
        assert scraped(gateway, authorization="Bearer a token")


# What watches


def promtool() -> Path:
    if found := shutil.which("promtool"):
        return Path(found)
    program = debian_extract("prometheus") / "usr" / "bin" / "promtool"
    if not program.exists():
        missing("promtool (of Debian's prometheus) is not there, so the rules are not read by it")
    return program


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    shutil.copytree(DEPLOY, folder)
    (folder / "token").write_text("a token")
    done = subprocess.run([promtool(), "check", "config", folder / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(read('alerts.yml')['groups'][0]['rules'])} rules found" in done.stdout


def test_alerts_sound_when_they_should(tmp_path: Path) -> None:
    """By Prometheus's own rule tests: nothing while all is well, and each where what it watches goes wrong."""
    shutil.copy(DEPLOY / "alerts.yml", tmp_path)
    wrong = {
        "FareboxDown": 'up{job="farebox", instance="a"}',
        "FareboxHoldsUnresolved": 'farebox_holds{state="unresolved"}',
        "FareboxHoldsOpen": 'farebox_holds{state="open"}',
        "FareboxSettlesLate": 'farebox_late_settlements{instance="a"}',
        "FareboxWriterBehind": 'farebox_writer_queue{instance="a"}',
        "FareboxOutboxBehind": "farebox_outbox_lag_seconds",
    }
    rates = {
        "FareboxBooksSlow": {
            'farebox_commit_seconds_bucket{instance="a", le="0.5"}': "0+10x60",
            'farebox_commit_seconds_bucket{instance="a", le="5"}': "0+100x60",
            'farebox_commit_seconds_bucket{instance="a", le="+Inf"}': "0+100x60",
        },
        "FareboxUpstreamFailing": {
            'farebox_orders_total{outcome="posted"}': "0+90x60",
            'farebox_orders_total{outcome="voided"}': "0+10x60",
            'farebox_errors_total{status="503"}': "0+10x60",
        },
        "FareboxUpstreamDenies": {'farebox_upstream_denials_total{upstream="a", status="402"}': "0+1x60"},
        "FareboxTaskFails": {'farebox_task_failures_total{instance="a", task="reconcile"}': "0+1x60"},
        "FareboxWalLarge": {'farebox_wal_bytes{instance="a"}': "300000000x60"},
        "FareboxBooksUnavailable": {'farebox_errors_total{error_type="books_unavailable", status="429"}': "0+1x60"},
    }
    named = [rule["alert"] for rule in read("alerts.yml")["groups"][0]["rules"]]
    assert set(named) == {*wrong, *rates}

    def series(values: dict[str, str]) -> list[dict[str, str]]:
        return [{"series": name, "values": value} for name, value in values.items()]

    tests = []
    for alert in named:
        bad = rates.get(alert) or {wrong[alert]: "0x60" if alert == "FareboxDown" else "5000x60"}
        well = dict.fromkeys(bad, "1x60" if alert == "FareboxDown" else "0x60")
        for values, expected in ((bad, 1), (well, 0)):
            query = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)'
            sample = {"expr": query, "eval_time": "30m", "exp_samples": [{"labels": "{}", "value": expected}]}
            tests.append({"interval": "1m", "input_series": series(values), "promql_expr_test": [sample]})
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": ["alerts.yml"], "tests": tests}))
    done = subprocess.run([promtool(), "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_and_alerts_ask_for_metrics_that_there_are(gateway: Gateway, tmp_path: Path) -> None:
    gateway.chat()
    gateway.chat(stream=True)
    gateway.chat(model="made/up")
    told = gateway.request("GET", "/metrics").body.decode()
    done = subprocess.run([promtool(), "check", "metrics"], input=told, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    known = set(re.findall(r"^(farebox_\w+)", told, re.MULTILINE))
    known |= set(re.findall(r"^# TYPE (farebox_\w+)", told, re.MULTILINE))
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [rule["expr"] for rule in read("alerts.yml")["groups"][0]["rules"]]
    for name in set(chain.from_iterable(re.findall(r"farebox_\w+", expression) for expression in asked)):
        assert name in known, name
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    rules = [{"record": f"panel_{number}", "expr": expression} for number, expression in enumerate(asked)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool(), "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# One machine


def test_the_unit_is_one(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        debian_install("systemd")
    if not shutil.which("systemd-analyze"):
        missing("systemd-analyze is not there, so the unit is not read by it")
    text = (DEPLOY / "farebox.service").read_text()
    for name in re.findall(r"(FAREBOX_\w+)=", text):
        check_settings([name])
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert command.endswith("/.venv/bin/farebox serve")
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[0]) > GRACE_SECONDS
    unit = tmp_path / "farebox.service"
    unit.write_text(
        text.replace(command, "/bin/true").replace("User=farebox", "User=root").replace("Group=farebox", "")
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "farebox.service" not in done.stderr, done.stderr


# Many machines


def manifests() -> dict[tuple[str, str], Any]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "farebox.yaml").read_text())
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def test_the_manifests_fit_together() -> None:
    found = manifests()
    workload = found["StatefulSet", "farebox"]["spec"]
    pod, labels = workload["template"]["spec"], workload["template"]["metadata"]["labels"]
    (container,) = pod["containers"]
    for kind, name in (("Service", "farebox"), ("Service", "farebox-pods")):
        assert found[kind, name]["spec"]["selector"].items() <= labels.items()
        assert found[kind, name]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert workload["serviceName"] == "farebox-pods"
    assert found["Service", "farebox-pods"]["spec"]["clusterIP"] == "None"
    budget = found["PodDisruptionBudget", "farebox"]["spec"]
    assert budget["selector"] == workload["selector"]
    assert budget["maxUnavailable"] < workload["replicas"]
    settings = {each["name"]: each["value"] for each in container["env"]}
    check_settings(settings)
    drain = int(settings["FAREBOX_GRACE_SECONDS"]) + int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > drain
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    there = {volume["name"] for volume in pod["volumes"]}
    there |= {claim["metadata"]["name"] for claim in workload["volumeClaimTemplates"]}
    assert set(mounted) == there
    assert settings["FAREBOX_SPOOL"].startswith(mounted["data"])
    assert Path(settings["FAREBOX_CONFIG"]).parent == Path(mounted["settings"])
    assert pod["securityContext"]["runAsNonRoot"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    user = [value for name, value in instructions() if name == "USER"]
    assert user == [str(pod["securityContext"]["runAsUser"])]


def test_the_probes_and_the_plans_are_what_a_gateway_answers_to(tmp_path: Path) -> None:
    found = manifests()
    (container,) = found["StatefulSet", "farebox"]["spec"]["template"]["spec"]["containers"]
    (name,) = found["ConfigMap", "farebox"]["data"]
    (tmp_path / name).write_text(found["ConfigMap", "farebox"]["data"][name])
    with Gateway(tmp_path) as gateway:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert gateway.request("GET", container[probe]["httpGet"]["path"]).status == 200
        assert gateway.chat(gateway.new_key("a", "--plan", "resale", "--prepaid", "1")).status == 200


@pytest.mark.parametrize("name", sorted(path.name for path in DEPLOY.iterdir() if path.is_file()))
def test_no_file_has_a_secret(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert not re.search(r"sk-(or|fb)-\w|password: \w|:[^/@$\s]+@", text.lower().replace("user:password@", ""))
    assert os.environ.get("OPENROUTER_API_KEY", "sk-or-") not in text
