"""docker-compose.yml says what the documents promise: closed, bounded, watched, and made of settings that exist."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from compose import BUILD, ROOT, resolved, services, tool

from gateway.settings import PREFIX, GatewaySettings
from glmserve.engine.settings import EngineSettings
from glmserve.errors import BadSettings

DOCKERFILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))
ONE_SHOTS = {"export", "verify", "publish", "keys"}
COMPOSES_OWN = {"GLM_ENGINE_DEVICE", "GLM_GATEWAY_BUILD", "GLM_GATEWAY_TRITON_URL", "GLM_GATEWAY_BIND"}
ENGINE_SETTINGS = {f"GLM_ENGINE_{name.upper()}" for name in EngineSettings.model_fields}
GATEWAY_SETTINGS = {f"{PREFIX}{name.upper()}" for name in GatewaySettings.model_fields}


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("gpu", {"triton", "gateway", "redis", "nginx"}),
        ("cpu", {"triton-cpu", "gateway", "redis", "nginx"}),
        ("monitoring", {"prometheus", "grafana", "gateway", "redis", "nginx"}),
    ],
)
def test_each_profile_starts_what_it_should(profile: str, expected: set[str]) -> None:
    assert set(services(profile)) == expected


@pytest.mark.parametrize("name", sorted(services()))
def test_every_service_is_hardened_bounded_and_pinned(name: str) -> None:
    service = services()[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["init"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= set(limits)
    assert service["logging"]["options"]["max-size"]
    tag = service["image"].rpartition(":")[2]
    assert re.search(r"\d+\.\d+", tag) and tag != "latest"
    assert service["restart"] == ("no" if name in ONE_SHOTS else "unless-stopped")
    if name not in ONE_SHOTS:
        assert service["healthcheck"]["test"]


def test_only_nginx_can_be_reached_from_outside() -> None:
    published = {name: service["ports"] for name, service in services().items() if service.get("ports")}
    assert published.pop("nginx")[0]["published"] == "8080"
    assert [port["host_ip"] for ports in published.values() for port in ports] == ["127.0.0.1"], "but for this host"
    open_networks = {name for name, network in resolved()["networks"].items() if not network.get("internal")}
    assert open_networks == {"edge"}
    on_edge = {name for name, service in services().items() if "edge" in service.get("networks", {})}
    assert on_edge == {"nginx", "grafana"}
    assert all(services()[name]["network_mode"] == "none" for name in ONE_SHOTS)


@pytest.mark.parametrize("name", ["triton", "triton-cpu"])
def test_triton_is_out_of_users_reach_and_asked_a_canary(name: str) -> None:
    service = services()[name]
    assert set(service["networks"]) == {"back"} and service["networks"]["back"]["aliases"] == ["triton"]
    assert int(service["shm_size"]) >= 1 << 30
    assert service["healthcheck"]["test"] == ["CMD", "check-triton"]
    assert all(volume["read_only"] for volume in service["volumes"])
    assert service["command"] == [f"/builds/{BUILD}"]


def test_the_gpu_is_reserved() -> None:
    for name in ("triton", "publish"):
        (device,) = services()[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"], device["count"]) == ("nvidia", ["gpu"], 1)


def test_every_variable_of_ours_is_a_setting_and_has_a_value_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in services().values():
        environment = service.get("environment") or {}
        assert {name for name in environment if name.startswith("GLM_")} <= ENGINE_SETTINGS | GATEWAY_SETTINGS
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                if value is not None:
                    patch.setenv(name, value)
            EngineSettings()
            if "GLM_GATEWAY_BIND" in environment:
                with pytest.raises(BadSettings, match="KEYS_FILE"):
                    GatewaySettings.read()  # without keys it is not to start
                patch.setenv("GLM_GATEWAY_NO_AUTH", "true")
                settings = GatewaySettings.read()
                assert service["stop_grace_period"] == "40s" and settings.graceful_timeout_s < 40
                assert settings.trusted_proxies == 1


@pytest.mark.parametrize(
    ("name", "settings"),
    [("triton", ENGINE_SETTINGS), ("triton-cpu", ENGINE_SETTINGS), ("gateway", GATEWAY_SETTINGS)],
)
def test_every_setting_in_dot_env_reaches_its_container(name: str, settings: set[str], tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{setting}=mine\n" for setting in settings), "utf-8")
    environment = services(env_file=env_file)[name]["environment"]
    assert {setting for setting in settings if environment.get(setting) != "mine"} == settings & COMPOSES_OWN
    assert settings <= set(environment)


def test_what_a_checkpoint_of_another_size_needs_is_a_variable(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    memory = {"TRITON_MEMORY": "64g", "EXPORT_MEMORY": "65g", "VERIFY_MEMORY": "66g"}
    chosen = {"PRECISION": "bf16", "TARGET": "cuda", "KV": "int8", "CHECKPOINT": str(tmp_path), "RUN_AS": "7:7"}
    env_file.write_text("".join(f"{name}={value}\n" for name, value in {**memory, **chosen}.items()), "utf-8")
    found = services(env_file=env_file)
    assert {"--precision=bf16", "--target=cuda", "--kv=int8"} <= set(found["export"]["command"])
    for name, gib in {"triton": 64, "triton-cpu": 64, "publish": 64, "export": 65, "verify": 66}.items():
        assert int(found[name]["deploy"]["resources"]["limits"]["memory"]) == gib << 30, name
    for name in ("export", "verify", "publish"):
        assert found[name]["user"] == "7:7"
        assert {v["source"]: v.get("read_only", False) for v in found[name]["volumes"]} == {
            str(tmp_path): True,
            str(ROOT / "builds"): False,
        }
    assert found["keys"]["user"] == "10001:10001", "as the gateway, which reads what only its owner may"


def test_files_that_are_mounted_exist() -> None:
    made_by_the_user = {"builds", "keys"}
    for service in services().values():
        for volume in service.get("volumes", []):
            source = Path(volume["source"])
            if volume["type"] == "bind" and source.name not in made_by_the_user:
                assert source.exists(), source


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing_in_a_dockerfile(path: Path) -> None:
    done = subprocess.run([tool("hadolint"), str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_nobody_in_particular_on_pinned_bases(path: Path) -> None:
    stages = read_stages(path)
    assert all(re.search(r":\d+\.\d+", base) for base in {stage.base for stage in stages.values()} - set(stages))
    built = {s["build"].get("target", list(stages)[-1]) for s in services_built_from(path)}
    assert built, "no service is built from it"
    assert {stages[name].user for name in built} == {"10001:10001"}


@dataclass
class Stage:
    """A stage of a Dockerfile: what it is made from, and who runs in it at its end."""

    base: str
    user: str


def read_stages(path: Path) -> dict[str, Stage]:
    """By name, or by number where it has none, in their order."""
    stages: dict[str, Stage] = {}
    current = Stage("", "root")
    for line in path.read_text("utf-8").splitlines():
        word, *rest = line.split() or [""]
        if word == "FROM":
            current = Stage(rest[0], stages[rest[0]].user if rest[0] in stages else "root")
            stages[rest[2] if len(rest) == 3 else str(len(stages))] = current
        elif word == "USER":
            current.user = rest[0]
    return stages


def services_built_from(path: Path) -> list[dict[str, Any]]:
    relative = str(path.relative_to(ROOT))
    return [s for s in services().values() if s.get("build", {}).get("dockerfile") == relative]
