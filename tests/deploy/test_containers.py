"""What containers run, run by hand: the same commands, scripts and paths, without Docker."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from compose import ROOT, services

from bench.ports import free_port
from bench.servers.paced_engine import Pace
from bench.servers.stub_build import write_stub_build
from bench.simulation.step_times import StepTimes
from glmserve.build.manifest import Manifest
from glmserve.system import malloc
from launcher.installation import of_the_wheel
from launcher.supervision.vital_signs import children_of

DOCKER = ROOT / "deploy" / "docker"
WAIT_S = 60.0
BACK_WITHIN_S = 15.0
WITHOUT = """
import importlib, sys
from importlib.machinery import PathFinder
absent, find = set(sys.argv[1].split(",")), PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in absent else find(name, *rest)
for name in sys.argv[2:]:
    importlib.import_module(name)
"""
GATEWAY = (
    "gateway.wsgi",
    "gateway.__main__",
    "gateway.server.gunicorn_config",
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.gthread",
)
EXPORT = ("export.cli", "export.certificate.plots", "export.certificate.html")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stub_build(tmp_path_factory.mktemp("builds"), Pace(StepTimes(0.005, 0, 0.001, 0), "a"))


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    give_up = time.monotonic() + WAIT_S
    while not is_so():
        assert process is None or process.poll() is None, "it ended"
        assert time.monotonic() < give_up
        time.sleep(0.1)


def is_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=15) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@contextmanager
def running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.triton
def test_the_commands_of_the_cpu_profile_start_answer_and_are_found_well(build: Path, tmp_path: Path) -> None:
    """triton-cpu's entrypoint and health check, and the gateway's command and health check."""
    subprocess.run([DOCKER / "link-wheel-server", tmp_path / "server"], env=python_first(), check=True, timeout=60)
    http, grpc, metrics, web = (free_port() for _ in range(4))
    runtime = tmp_path / "tmp"
    runtime.mkdir()
    on_triton = {
        **of_the_wheel(tmp_path / "wheel").environment,
        "PATH": f"{tmp_path / 'server' / 'bin'}:{DOCKER}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TRITON_BACKENDS": str(tmp_path / "server" / "backends"),
        "TMPDIR": str(runtime),
        "TRITON_EXIT_TIMEOUT_S": "2",
        "GLM_ENGINE_CONTEXT_TOKENS": "1024",
        "GLM_GATEWAY_BUILD": str(build),
        "GLM_GATEWAY_TRITON_URL": f"grpc://127.0.0.1:{grpc}",
        "CHECK_TRITON_NOTES": str(tmp_path),
        "GLM_GATEWAY_CANARY_TIMEOUT_S": "1",
    }
    here = [f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")]
    ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}", "--allow-gpu-metrics=false"]
    check = services()["triton-cpu"]["healthcheck"]["test"][1:]
    with running(["serve-triton", str(build), *here, *ports], on_triton, tmp_path) as triton:
        on_triton["CHECK_TRITON_PID"] = str(triton.pid)
        wait_until(lambda: is_ok(f"http://127.0.0.1:{http}/v2/health/ready"), triton)
        assert not is_ok(f"http://127.0.0.1:{http}/v2/models/glm4v/config"), "a closed part"
        assert subprocess.run(check, env=on_triton, cwd=ROOT, timeout=60, check=False).returncode == 0
        gateway = services()["gateway"]
        on_gateway = {
            **os.environ,
            **{name: value for name, value in gateway["environment"].items() if value is not None},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GLM_GATEWAY_BUILD": str(build),
            "GLM_GATEWAY_TRITON_URL": on_triton["GLM_GATEWAY_TRITON_URL"],
            "GLM_GATEWAY_REDIS_URL": "",
            "GLM_GATEWAY_BIND": f"127.0.0.1:{web}",
        }
        command = ["gunicorn", "-c", "python:gateway.server.gunicorn_config"]
        assert f"CMD {command}".replace("'", '"') in (DOCKER / "gateway.Dockerfile").read_text("utf-8")
        program, *arguments = gateway["healthcheck"]["test"][1:]
        asked = [program, *(text.replace(":5000/", f":{web}/") for text in arguments)]
        with running(command, on_gateway, ROOT) as web_server:
            wait_until(lambda: is_ok(f"http://127.0.0.1:{web}/health/live"), web_server)
            assert subprocess.run(asked, env=on_gateway, timeout=60, check=False).returncode == 0
            killed, prefixes, first = time.monotonic(), shared_memory_of(runtime), server_of(triton.pid)
            kill_models_of(first)
            wait_until(lambda: server_of(triton.pid) not in (None, first), triton)
            while subprocess.run(check, env=on_triton, cwd=ROOT, timeout=60, check=False).returncode:
                assert time.monotonic() - killed < BACK_WITHIN_S
            assert triton.poll() is None
            prefixes |= shared_memory_of(runtime)
    assert len(prefixes) == 2
    assert not list(runtime.glob("glm-*"))
    assert not [region for prefix in prefixes for region in Path("/dev/shm").glob(f"{prefix}*")]


def shared_memory_of(runtime: Path) -> set[str]:
    """What the names of the regions of the Triton that runs now begin with: they bear its folder's."""
    return {f"glm_{folder.name.removeprefix('glm-triton-')}_" for folder in runtime.glob("glm-triton-*")}


def server_of(supervisor: int) -> int | None:
    """The tritonserver that a `serve-triton` runs; None between two."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return int(children[0]) if children else None


def kill_models_of(pid: int | None) -> None:
    """SIGKILL for the stubs of a Triton, which goes on calling itself ready."""
    assert pid is not None
    for child in children_of(pid):
        os.kill(child, signal.SIGKILL)


def python_first() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_serve_triton_says_what_it_misses(tmp_path: Path) -> None:
    for arguments, code in (([], 2), ([tmp_path], 4)):
        done = subprocess.run(
            [DOCKER / "serve-triton", *arguments],
            env=python_first(),
            cwd=ROOT,
            capture_output=True,
            timeout=10,
            check=False,
        )
        assert done.returncode == code and done.stderr


@pytest.mark.parametrize("given", [{}, {"MALLOC_TRIM_THRESHOLD_": "1", "GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}])
def test_serve_triton_has_the_launchers_variables_for_memory(given: dict[str, str], tmp_path: Path) -> None:
    build = tmp_path / "build"
    (build / "model_repository").mkdir(parents=True)
    Manifest.describe(build, "recipe", "none", "fp32", "cpu").write(build)
    stand_in = tmp_path / "tritonserver"
    stand_in.write_text("#!/bin/sh\nexec env\n", "utf-8")
    stand_in.chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [DOCKER / "serve-triton", build],
        env={"PATH": path, **given},
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 6 and "tritonserver has ended (exit code 0)" in done.stderr
    assert malloc.variables(given).items() <= dict(line.split("=", 1) for line in done.stdout.splitlines()).items()


@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed")
def test_nginx_takes_the_configuration_of_its_container(tmp_path: Path) -> None:
    """All of it but the two directives that Debian's nginx is too old for: names that are looked up again."""
    folder = tmp_path / "nginx"
    shutil.copytree(ROOT / "deploy" / "nginx", folder)
    servers = (folder / "gateways.conf").read_text("utf-8")
    assert "server gateway:5000 resolve " in servers
    known_here = re.sub(r"^resolver .*$", "", servers, flags=re.MULTILINE).replace(
        "gateway:5000 resolve", "127.0.0.1:5000"
    )
    (folder / "gateways.conf").write_text(known_here, "utf-8")
    program, *arguments = services()["nginx"]["command"]
    in_place = [re.sub("^/tmp/|(?<=pid )/tmp/", f"{tmp_path}/", text) for text in arguments]
    in_place = [text.replace("/etc/nginx/glm", str(folder)) for text in in_place]
    done = subprocess.run(
        [f"/usr/sbin/{program}", *in_place, "-t"], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_gateway_starts_with_no_more_than_its_image_holds() -> None:
    there = closure(pins("gateway.txt")) | {"glm-triton"}
    assert not {"onnxruntime", "nvidia-pytriton", "torch", "transformers", "onnx", "llguidance"} & there
    absent = absent_beside(there)
    assert "onnxruntime" in absent
    import_all(GATEWAY, absent)


@pytest.mark.parity
def test_the_exports_images_hold_what_their_commands_import() -> None:
    serve = closure(pins("serve.txt")) | {"glm-triton"}
    assert {"torch", "transformers"} <= absent_beside(serve)
    import_all(EXPORT, absent_beside(serve))
    wanted = re.compile(r"^(torch|transformers)==")
    assert f"grep -E '{wanted.pattern}' requirements/test.txt" in (DOCKER / "triton-cpu.Dockerfile").read_text("utf-8")
    added = [pin.split("==")[0] for pin in pins("test.txt", with_versions=True) if wanted.match(pin)]
    import_all((*EXPORT, "export.verify.against_transformers"), absent_beside(serve | closure(added)))


def absent_beside(there: set[str]) -> set[str]:
    """Modules that only other distributions than these bring."""
    packages = importlib.metadata.packages_distributions()
    return {module for module, owners in packages.items() if not {normal(name) for name in owners} & there}


def import_all(modules: tuple[str, ...], absent: set[str]) -> None:
    command = [sys.executable, "-c", WITHOUT, ",".join(absent), *modules]
    subprocess.run(command, cwd=ROOT, timeout=120, check=True)


def test_the_gateways_requirements_are_a_part_of_what_serving_needs() -> None:
    assert set(pins("gateway.txt", with_versions=True)) <= set(pins("serve.txt", with_versions=True))


def pins(name: str, with_versions: bool = False) -> list[str]:
    lines = (ROOT / "requirements" / name).read_text("utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    return wanted if with_versions else [re.split(r"==|\[", line)[0] for line in wanted]


def closure(names: list[str]) -> set[str]:
    """These distributions and all that they require, extras left out."""
    found: set[str] = set()
    left = [normal(name) for name in names]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # not for this platform
        left += [normal(re.split(r"[^\w.-]", line)[0]) for line in required if "extra ==" not in line]
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
