"""Alerts and scrapes name what exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose import ROOT, services

from gateway.observability.metrics import Metrics
from glmserve.engine.metrics import ALL_METRICS
from glmserve.errors import _BY_CODE

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
SCRAPES = ROOT / "deploy" / "prometheus" / "prometheus.yml"
CASES = Path(__file__).with_name("alerts_test.yml")
PROMTOOL = shutil.which("promtool")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return list(group["rules"])


def test_every_alert_asks_for_metrics_that_exist() -> None:
    metrics = Metrics(None)
    metrics.ended("/", 200, "internal", 1.0, {})
    gateway = set(re.findall(r"^(glm_\w+)", metrics.page().decode(), re.MULTILINE))
    engine = {metric.name for metric in ALL_METRICS} | {f"{m.name}_bucket" for m in ALL_METRICS if m.buckets}
    for rule in rules():
        asked = set(re.findall(r"glm_\w+", rule["expr"]))
        assert asked and asked <= gateway | engine, rule["alert"]  # `up` is Prometheus' own
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"] and rule["annotations"]["action"]


def test_refusals_are_watched_by_codes_that_exist() -> None:
    expressions = " ".join(rule["expr"] for rule in rules())
    reasons = {code for found in re.findall(r'reason=~?"([^"]+)"', expressions) for code in found.split("|")}
    assert reasons and reasons <= set(_BY_CODE)


def test_one_lost_replica_of_several_is_noticed() -> None:
    expressions = {rule["alert"]: rule["expr"] for rule in rules()}
    assert expressions["GlmReplicaUnreachable"].startswith("up == 0 and on (namespace, job)")
    assert "(up) < count by (namespace, job) (up offset 15m)" in expressions["GlmReplicaMissing"]


def test_prometheus_asks_the_services_that_compose_starts() -> None:
    for job in yaml.safe_load(SCRAPES.read_text("utf-8"))["scrape_configs"]:
        (found,) = job["dns_sd_configs"]
        assert set(found["names"]) <= set(services())


def test_grafana_is_given_our_dashboard() -> None:
    mounts = {v["target"]: v["source"] for v in services()["grafana"]["volumes"]}
    assert json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text("utf-8"))["panels"]
    assert mounts["/etc/dashboards/glm.json"] == str(ROOT / "docs" / "grafana-dashboard.json")
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/glm.yml").read_text("utf-8"))
    assert provider["providers"][0]["options"]["path"] == "/etc/dashboards"


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", ALERTS), ("check", "config", "--syntax-only", SCRAPES), ("test", "rules", CASES)],
    ids=lambda arguments: " ".join(map(str, arguments[:2])),
)
def test_promtool_accepts_the_files_and_lets_alerts_fire_when_they_should(arguments: tuple[str | Path, ...]) -> None:
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
