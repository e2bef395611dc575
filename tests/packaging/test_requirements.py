"""What is installed is pinned, once, and the same everywhere."""

from __future__ import annotations

import re
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).parents[2] / "requirements"


def read(name: str) -> str:
    return (FOLDER / name).read_text()


def lines(name: str) -> list[str]:
    return [line for line in read(name).splitlines() if line and not line.startswith("#")]


def pins(name: str) -> dict[str, str]:
    split = [line.split("==") for line in lines(name)]
    assert all(len(parts) == 2 for parts in split), f"{name} holds a line that is no pin"
    return {canonicalize_name(package.split("[")[0]): version for package, version in split}


def everything_of(name: str) -> set[str]:
    """The packages of a list, and of what is installed those that they bring along."""
    waiting, seen = [Requirement(line) for line in lines(name)], set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key not in seen:
            seen.add(key)
            further = [Requirement(text) for text in requires(wanted.name) or []]
            cases = [{"extra": extra} for extra in ("", *wanted.extras)]
            waiting += [one for one in further if one.marker is None or any(map(one.marker.evaluate, cases))]
    return {name for name, _ in seen}


@pytest.mark.parametrize("name", ["gateway.txt", "serve.txt", "test.txt"])
def test_every_direct_dependency_is_pinned_to_what_was_tested(name: str) -> None:
    assert pins(name).items() <= pins("constraints.txt").items()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gateway.txt", "serve.txt"])
def test_what_a_dependency_brings_along_is_pinned_to_what_is_installed(name: str) -> None:
    installed = {package: version(package) for package in everything_of(name)}
    assert installed.items() <= pins("constraints.txt").items()


@pytest.mark.parametrize(
    ("image", "lock", "files", "without"),
    [
        ("gateway", "gateway", ["gateway.txt"], set()),
        ("triton-cpu", "serve", ["serve.txt"], set()),
        ("triton", "gpu", ["serve.txt", "gpu.txt"], {"nvidia-pytriton", "onnxruntime"}),
    ],
)
def test_an_image_checks_a_hash_of_everything_it_installs(
    image: str, lock: str, files: list[str], without: set[str]
) -> None:
    """Else run `make locks`."""
    text = read(f"{lock}.lock")
    locked = re.findall(r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", text, re.MULTILINE)
    versions = {canonicalize_name(name): version for name, version, _ in locked}
    asked = dict(pair for file in files for pair in pins(file).items() if pair[0] not in without)
    assert asked.items() <= versions.items() and not without & set(versions)
    allowed = pins("constraints.txt") | pins("gpu.txt")
    assert {pair for pair in versions.items() if pair[0] in allowed} <= allowed.items()
    if lock != "gpu":  # which is installed nowhere here
        assert set(versions) >= everything_of(files[0]) and versions.items() <= pins("constraints.txt").items()
    assert sum(1 + hashes.count("\n") for _, _, hashes in locked) == len(lines(f"{lock}.lock"))
    dockerfile = (FOLDER.parent / "deploy" / "docker" / f"{image}.Dockerfile").read_text()
    assert f"pip install --require-hashes --only-binary=:all: --requirement requirements/{lock}.lock" in dockerfile


def test_both_clients_of_triton_are_asked_for_with_all_that_they_import() -> None:
    assert {"grpcio", "aiohttp", "geventhttpclient", "gevent", "greenlet"} <= everything_of("gateway.txt")


def test_a_gateway_installs_a_part_of_what_serving_does() -> None:
    assert set(lines("gateway.txt")) <= set(lines("serve.txt"))


def test_serving_needs_neither_torch_nor_transformers() -> None:
    assert not {"torch", "transformers"} & set(pins("serve.txt"))


def test_the_gpu_build_of_onnxruntime_has_the_version_of_the_other() -> None:
    assert pins("gpu.txt")["onnxruntime-gpu"] == pins("serve.txt")["onnxruntime"]


def test_both_packages_of_tensorrt_for_rtx_are_pinned_to_one_version() -> None:
    assert pins("rtx.txt").keys() == {"tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings"}
    assert len(set(pins("rtx.txt").values())) == 1
