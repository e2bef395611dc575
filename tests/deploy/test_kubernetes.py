"""The chart, rendered by Helm itself and held to Kubernetes' own schemas, and what it promises on top of them."""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from compose import ROOT
from fake_backend import FakeBackend
from stand_in_build import write_processor_and_canary

from gateway.app import create_app
from gateway.settings import PREFIX, GatewaySettings
from glmserve.build.manifest import CHECKPOINT_FOLDER, DECODER_PATH
from glmserve.build.manifest import Manifest as BuildManifest
from glmserve.engine.metrics import ALL_METRICS
from glmserve.engine.settings import EngineSettings

CHART = ROOT / "deploy" / "helm" / "glm-triton"
KSERVE = ROOT / "deploy" / "kserve"
VERSION = "1.33"
DIGEST = "0123456789abcdef"
OCI = {"source": "oci", "oci": {"repository": "registry.example/glm", "imageDigest": f"sha256:{'a' * 64}"}}
S3 = {"source": "s3", "s3": {"url": "s3://bucket/builds", "secretName": "s3"}}
CASES: dict[str, dict[str, Any]] = {
    "gpu": {},
    "replicas": {},
    "cpu": {},
    "gpu from an image": {"build": OCI},
    "replicas from s3": {"build": S3},
    "gpu with keys": {"gateway": {"keysSecret": "keys"}, "redis": {"enabled": False}},
}
Manifest = dict[str, Any]


def values(case: str) -> dict[str, Any]:
    """The values file that a case begins with the name of, with the case's own laid over it."""
    file = yaml.safe_load((CHART / f"values-{case.split()[0]}.yaml").read_text("utf-8"))
    for section, changed in CASES[case].items():
        file[section] = {**file.get(section, {}), **changed}
    file["build"] = {**file.get("build", {}), "digest": DIGEST}
    return dict(file)


@cache
def rendered(case: str) -> list[Manifest]:
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values(case), name="glm", namespace="models")
    return [manifest for text in files.values() for manifest in yaml.safe_load_all(text) if manifest]


def of_kind(case: str, kind: str) -> dict[str, Manifest]:
    return {m["metadata"]["name"]: m for m in rendered(case) if m["kind"] == kind}


def pod_of(case: str, name: str) -> Manifest:
    return dict(of_kind(case, "Deployment")[f"glm-{name}"]["spec"]["template"]["spec"])


def environment(container: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


@pytest.mark.parametrize("case", CASES)
def test_helm_lints_it_without_a_warning(case: str) -> None:
    found = [m for m in helm.lint(CHART, values(case), strict=True)["messages"] if m["severity"] > 1]
    assert not found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_accepts_every_manifest(case: str) -> None:
    kinds = {manifest["kind"] for manifest in rendered(case)}
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= kinds
    for manifest in rendered(case):
        if manifest["kind"] != "ServiceMonitor":  # the Prometheus operator's own; its schema is not among them
            kubernetes_validate.validate(manifest, VERSION, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_hardened_bounded_and_pinned(case: str) -> None:
    for deployment in of_kind(case, "Deployment").values():
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
            assert ":" in container["image"] and not container["image"].endswith(":latest")


@pytest.mark.parametrize("case", CASES)
def test_every_variable_of_ours_is_a_setting_and_takes_its_value(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = {f"GLM_ENGINE_{name.upper()}" for name in EngineSettings.model_fields}
    gateway = {f"{PREFIX}{name.upper()}" for name in GatewaySettings.model_fields}
    for name in ("triton", "gateway"):
        found = environment(pod_of(case, name)["containers"][0])
        ours = {key: value for key, value in found.items() if key.startswith("GLM_")}
        assert set(ours) <= engine | gateway
        with monkeypatch.context() as patch:
            for key, value in ours.items():
                patch.setenv(key, value)
            if name == "gateway" and not {"GLM_GATEWAY_NO_AUTH", "GLM_GATEWAY_KEYS_FILE"} & set(ours):
                patch.setenv("GLM_GATEWAY_NO_AUTH", "true")  # it would not start, which is meant
            EngineSettings()
            GatewaySettings.read()


@pytest.mark.parametrize("case", CASES)
def test_tritons_probes_ask_the_golden_image_and_give_it_time_to_load(case: str) -> None:
    triton = pod_of(case, "triton")
    (container,) = triton["containers"]
    probes = [container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert all(probe["exec"]["command"] == ["python3", "-m", "gateway", "canary"] for probe in probes)
    load_s = int(environment(container)["TRITON_LOAD_TIMEOUT_S"])
    assert load_s <= probes[0]["periodSeconds"] * probes[0]["failureThreshold"] < load_s + 60
    drain_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    exit_s = int(environment(container)["TRITON_EXIT_TIMEOUT_S"])
    assert triton["terminationGracePeriodSeconds"] > drain_s + exit_s
    assert exit_s > GatewaySettings.model_fields["deadline_s"].default
    deadline_s = float(environment(container)["GLM_GATEWAY_CANARY_TIMEOUT_S"])
    assert all(probe["timeoutSeconds"] > deadline_s for probe in probes)
    shm = next(volume for volume in triton["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"]["medium"] == "Memory"
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]


def test_a_gateways_canary_may_wait_as_long_as_a_request() -> None:
    (container,) = pod_of("gpu", "gateway")["containers"]
    deadline_s = float(environment(container)["GLM_GATEWAY_CANARY_TIMEOUT_S"])
    assert (
        GatewaySettings.model_fields["deadline_s"].default < deadline_s < container["readinessProbe"]["timeoutSeconds"]
    )


def test_a_build_is_mounted_by_its_digest_and_compared_with_its_manifest() -> None:
    volumes = {case: next(v for v in pod_of(case, "triton")["volumes"] if v["name"] == "builds") for case in CASES}
    assert volumes["gpu"]["persistentVolumeClaim"]["readOnly"]
    assert volumes["gpu from an image"]["image"]["reference"] == f"registry.example/glm@sha256:{'a' * 64}"
    assert "emptyDir" in volumes["replicas from s3"]
    copy, verify = pod_of("replicas from s3", "triton")["initContainers"]
    assert f"s3://bucket/builds/{DIGEST}" in copy["args"] and f"/builds/{DIGEST}" in copy["args"]
    for case in CASES:
        verify = pod_of(case, "triton")["initContainers"][-1]
        folder = "/builds" if "image" in case else f"/builds/{DIGEST}"
        assert verify["args"][1:] == [folder, DIGEST]
        compile(verify["args"][0], "verify-build", "exec")
        assert pod_of(case, "triton")["containers"][0]["args"] == [folder]


def test_a_gateway_copies_all_of_a_build_that_it_reads_and_no_models(tmp_path: Path) -> None:
    """What `aws s3 sync` would copy by the chart's options is compared by the chart's script, and starts a gateway."""
    write_processor_and_canary(tmp_path, "What is in the picture?", None)
    (tmp_path / DECODER_PATH).parent.mkdir(parents=True)
    (tmp_path / DECODER_PATH).write_bytes(b"20 GB")
    manifest = BuildManifest.describe(tmp_path, "recipe", "demo", "fp32", "cpu")
    manifest.write(tmp_path)
    copy, verify = pod_of("replicas from s3", "gateway")["initContainers"]
    left_out = [word.partition("=")[2] for word in copy["args"] if word.startswith("--exclude=")]
    for name in manifest.files:
        if any(fnmatch(name, pattern) for pattern in left_out):
            (tmp_path / name).unlink()
    assert not (tmp_path / DECODER_PATH).exists()
    create_app(GatewaySettings(build=tmp_path), FakeBackend([]))

    script, _, _, *rest = verify["args"]
    program = [sys.executable, "-c", script, str(tmp_path), manifest.digest]
    assert subprocess.run([*program, *rest], timeout=60, check=False).returncode == 0
    assert subprocess.run(program, timeout=60, check=False, stderr=subprocess.DEVNULL).returncode != 0, "Triton's"
    (tmp_path / CHECKPOINT_FOLDER / "config.json").write_text("{}", "utf-8")
    assert subprocess.run([*program, *rest], timeout=60, check=False, stderr=subprocess.DEVNULL).returncode != 0
    volumes = {name: pod_of("replicas from s3", name)["volumes"] for name in ("triton", "gateway")}
    sizes = {name: next(v for v in of if v["name"] == "builds")["emptyDir"] for name, of in volumes.items()}
    assert sizes == {"triton": {"sizeLimit": "40Gi"}, "gateway": {"sizeLimit": "1Gi"}}


@pytest.mark.parametrize(("case", "surge"), [("gpu", 0), ("replicas", 0), ("cpu", 1)])
def test_an_upgrade_asks_for_a_gpu_more_only_where_values_say_so(case: str, surge: int) -> None:
    strategy = of_kind(case, "Deployment")["glm-triton"]["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1 - surge}}


def test_the_gateways_see_every_replica_behind_one_name() -> None:
    service = of_kind("replicas", "Service")["glm-triton"]
    assert service["spec"]["clusterIP"] == "None"
    labels = of_kind("replicas", "Deployment")["glm-triton"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    url = environment(pod_of("replicas", "gateway")["containers"][0])["GLM_GATEWAY_TRITON_URL"]
    assert url == "grpc://glm-triton:8001"


def test_replicas_grow_by_our_running_and_waiting_gauges() -> None:
    scaler = of_kind("replicas", "HorizontalPodAutoscaler")["glm-triton"]["spec"]
    names = {metric["pods"]["metric"]["name"] for metric in scaler["metrics"]}
    assert names == {"glm_requests_running", "glm_requests_waiting"}
    assert names <= {metric.name for metric in ALL_METRICS if metric.kind == "gauge"}
    assert "replicas" not in of_kind("replicas", "Deployment")["glm-triton"]["spec"], "or every upgrade resets it"
    slots = int(environment(pod_of("replicas", "triton")["containers"][0])["GLM_ENGINE_SLOTS"])
    running = next(m for m in scaler["metrics"] if m["pods"]["metric"]["name"] == "glm_requests_running")
    assert float(running["pods"]["target"]["averageValue"]) < slots, "else it never grows"


def test_where_no_hardware_is_known_the_engine_chooses_its_slots_by_memory() -> None:
    """A number that somebody sets is never lowered: on a smaller GPU, Triton would not start."""
    chosen = [environment(pod_of("gpu", "triton")["containers"][0])]
    runtime = yaml.safe_load((KSERVE / "serving-runtime.yaml").read_text("utf-8"))
    chosen.append(environment(runtime["spec"]["containers"][0]))
    assert all({"GLM_ENGINE_SLOTS", "GLM_ENGINE_WARM_ROWS"}.isdisjoint(names) for names in chosen)


def test_only_gateways_and_prometheus_reach_triton() -> None:
    policy = of_kind("gpu", "NetworkPolicy")["glm-triton"]["spec"]
    ports = [rule["ports"][0]["port"] for rule in policy["ingress"]]
    assert ports == [8001, 8002] and policy["egress"] == []
    (source,) = policy["ingress"][0]["from"]
    assert source["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"


def test_service_monitors_name_ports_that_exist() -> None:
    for name, monitor in of_kind("replicas", "ServiceMonitor").items():
        service = of_kind("replicas", "Service")[name]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize(
    "given",
    [
        {"build": {}},
        {"build": {"digest": "latest"}},
        {"build": {"digest": 1234567890123456}},
        {"build": {"digest": DIGEST, "source": "ftp"}},
        {"build": {"digest": DIGEST}, "triton": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
    ],
)
def test_values_that_cannot_be_are_refused(given: dict[str, Any]) -> None:
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmValuesError):
        chart.validate_schema(given)


@pytest.mark.slow
def test_the_kserve_runtime_starts_what_the_chart_starts() -> None:
    runtime = yaml.safe_load((KSERVE / "serving-runtime.yaml").read_text("utf-8"))
    service = yaml.safe_load((KSERVE / "inference-service.yaml").read_text("utf-8"))
    pod = {name: runtime["spec"][name] for name in ("containers", "volumes")}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "runtime"}, "spec": pod}, VERSION, strict=True
    )
    ours, (theirs,) = pod_of("gpu", "triton")["containers"][0], pod["containers"]
    same = ("image", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "resources")
    assert {name: theirs[name] for name in same} == {name: ours[name] for name in same}
    assert set(environment(theirs)) == set(environment(ours))
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] == runtime["spec"]["supportedModelFormats"][0]["name"]
