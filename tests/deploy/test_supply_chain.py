"""What pins images and looks up vulnerabilities for an operator, tried on stand-ins for docker and pip-audit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compose import ROOT

PROGRAMS = ROOT / "deploy" / "docker"
NAMED = ("deploy/docker/gateway.Dockerfile", "docker-compose.yml", "deploy/helm/glm-triton/values.yaml")
WAIT_S = 30


def run(program: str, folder: Path, *arguments: str, **stand_ins: str) -> subprocess.CompletedProcess[str]:
    """With these shell scripts in place of programs, and no others."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, script in stand_ins.items():
        path = programs / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)
    command = [sys.executable, str(PROGRAMS / program), *arguments]
    environment = {**os.environ, "PATH": f"{programs}:/bin"} if stand_ins else {"PATH": str(programs)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in NAMED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def names(folder: Path) -> dict[str, list[str]]:
    return {name: re.findall(r"(?:FROM |image: )(\S+)", (folder / name).read_text("utf-8")) for name in NAMED}


def test_every_image_of_others_gets_its_digest_and_ours_none(copy: Path) -> None:
    docker = 'printf "sha256:%s\\n" "$(printf %s "$6" | sha256sum | cut -d" " -f1)"'
    done = run("pin-images", copy, str(copy), docker=docker)
    assert done.returncode == 0, done.stderr
    for before, after in zip(names(ROOT).values(), names(copy).values(), strict=True):
        assert [name.partition("@")[0] for name in after] == [name.partition("@")[0] for name in before]
        assert all(("@sha256:" in name) != name.startswith("glm-triton/") for name in after)
    once = names(copy)
    run("pin-images", copy, str(copy), docker=docker)
    assert names(copy) == once


@pytest.mark.parametrize("docker", ["echo no such manifest >&2; exit 1", "echo latest"])
def test_where_a_registry_does_not_answer_nothing_is_written(copy: Path, docker: str) -> None:
    done = run("pin-images", copy, str(copy), docker=docker)
    assert done.returncode == 1 and ("no such manifest" in done.stderr or "no digest" in done.stderr)
    assert names(copy) == names(ROOT)


def test_without_docker_it_says_so(copy: Path) -> None:
    done = run("pin-images", copy, str(copy))
    assert done.returncode == 1 and "There is no docker on this machine." in done.stderr


def test_a_known_vulnerability_fails_and_is_named(tmp_path: Path) -> None:
    vulnerable = {"name": "flask", "version": "3.1.3", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.4"]}]}
    said = json.dumps({"dependencies": [vulnerable, {"name": "idna", "version": "3.20", "vulns": []}]})
    done = run("audit-requirements", tmp_path, pip_audit=f"echo '{said}'; exit 1")
    assert done.returncode == 1
    assert "gateway.lock: flask 3.1.3: PYSEC-1, fixed in 3.1.4" in done.stdout and "idna" not in done.stdout


def test_without_a_vulnerability_it_says_so(tmp_path: Path) -> None:
    done = run("audit-requirements", tmp_path, pip_audit="echo '{\"dependencies\": []}'")
    assert (done.returncode, done.stdout) == (0, "No known vulnerability in what the images install.\n")


def test_without_pip_audit_or_its_database_nothing_is_found_and_it_says_why(tmp_path: Path) -> None:
    done = run("audit-requirements", tmp_path)
    assert done.returncode == 0 and "were not looked up: pip-audit is not installed." in done.stdout
    done = run("audit-requirements", tmp_path, pip_audit="echo could not connect >&2; exit 1")
    assert done.returncode == 0 and "reached no database (could not connect)" in done.stdout
