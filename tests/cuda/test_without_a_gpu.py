"""The CUDA path on a runtime whose kernels do nothing: where nodes run, what is copied and captured, and what fails.

`make cuda-rehearsal` fetches what this needs: onnxruntime-gpu (260 MB) and CUDA's headers, beside a C compiler.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.checkpoints.builds import build_of
from bench.checkpoints.synthetic import Shape, write_checkpoint
from bench.gpu.check import _image
from bench.gpu.plan import TINY, rehearsal
from export.precision import Target
from glmserve.build.manifest import decoder_in
from glmserve.engine.memory_plan import decoders_files, weight_bytes
from tests.cuda.fake_device import PROVIDER, SITE, build_libraries

ROOT = Path(__file__).parents[2]
BUILDS = (
    ("bf16", "same", 0),
    ("bf16", "same", 1),
    ("bf16", "int8", 0),
    ("fp16", "same", 0),
    ("int8", "same", 0),
    ("int4", "same", 1),
)
"""Precision, that of KV, and the number of the device, of which there are two."""
CHANGING = 4
"""Inputs that change from one decode step to the next: tokens, positions, lengths, and random numbers."""

pytestmark = pytest.mark.skipif(not PROVIDER.is_file(), reason="needs onnxruntime-gpu: make cuda-rehearsal")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libraries")
    build_libraries(folder, devices=2)
    return folder


def run(libraries: Path | None, *command: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{SITE}:{ROOT}", "LD_LIBRARY_PATH": str(libraries or "")}
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def export(checkpoint: Path, out: Path, precision: str, kv: str) -> Path:
    return build_of(checkpoint, precision, print, Target.CUDA, out, kv)


@pytest.fixture(scope="module", params=BUILDS, ids=lambda build: "-".join(map(str, build)))
def seen(request: pytest.FixtureRequest, libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How the device was used while a build of the demo answered."""
    precision, kv, number = request.param
    build = export(ROOT / "demo/checkpoint", tmp_path_factory.mktemp("builds"), precision, kv)
    done = run(libraries, "-m", "tests.cuda.rehearsal", build, number)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_request_is_answered_and_the_device_is_used_rightly(seen: dict[str, Any]) -> None:
    assert set(seen["endings"]) == {"done"}
    assert not seen["faults"]


def test_every_node_of_the_decoder_runs_on_the_device(seen: dict[str, Any]) -> None:
    assert seen["captures_graphs"]  # onnxruntime refuses to capture anything else
    assert all(step["to_host"] == 1 + 2 * step["wants_logprobs"] for step in seen["steps"])


def test_each_bucket_is_captured_at_the_start_and_then_only_launched(seen: dict[str, Any]) -> None:
    captured = [warm_up["graphs"] for warm_up in seen["warm_ups"]]
    assert captured == [4, 4]  # of two engines, each with a thread of its own
    plain = [step for step in seen["steps"] if step["is_decode"] and not step["has_extras"]]
    assert plain
    for step in plain:
        assert (step["launches"], step["graphs"], step["graph_launches"]) == (0, 0, 1)
        assert (step["allocations"], step["on_device"]) == (0, 0)


def test_penalties_and_log_probabilities_are_captured_when_they_first_come(seen: dict[str, Any]) -> None:
    steps = [step for step in seen["steps"] if step["is_decode"] and step["has_extras"]]
    known: list[list[int]] = []
    for step in steps:
        is_new = step["sizes"] not in known
        known += [step["sizes"]] * is_new
        assert (step["graphs"], step["graph_launches"]) == (is_new, 1)
        assert is_new or not step["launches"]
    assert len(known) < len(steps)


def test_a_step_sends_only_what_has_changed(seen: dict[str, Any]) -> None:
    plain = [step for step in seen["steps"] if step["is_decode"] and not step["has_extras"]]
    assert sum(step["to_device"] <= CHANGING for step in plain) > len(plain) / 2
    assert min(step["to_device"] for step in plain) > 0


def test_an_image_is_read_on_the_device(seen: dict[str, Any]) -> None:
    assert seen["picture"]["launches"] and seen["picture"]["to_host"] == 1


@pytest.mark.parametrize("kv", ["same", "int8"])
def test_the_gpu_check_runs_to_its_end(libraries: Path, tmp_path: Path, kv: str) -> None:
    checkpoint = write_checkpoint(TINY, tmp_path / "tiny")
    plan = rehearsal(checkpoint, export(checkpoint, tmp_path / "builds", "bf16", kv), _image(tmp_path))
    replace(plan, device="cuda", precision="bf16", kv=kv).write(tmp_path / "plan.json")
    done = run(libraries, "-m", "bench.gpu.ours", tmp_path / "plan.json", tmp_path / "ours.json")
    assert done.returncode == 0, done.stderr[-2000:]
    decoded = json.loads((tmp_path / "ours.json").read_text("utf-8"))["decoded"]
    assert [row["cuda_graphs"] for row in decoded] == [True] * 3 + [False] * 3


ALLOCATE = """
from glmserve.engine.runtime.device import open_device
from tests.cuda.rehearsal import Runtime
device, runtime = open_device("cuda"), Runtime()
before = runtime.counts().bytes
block = device.allocate(72 << 20)
print(runtime.counts().bytes - before)
del block
print(runtime.counts().bytes - before)
"""


def test_kv_takes_as_much_memory_as_was_planned_and_gives_it_back(libraries: Path) -> None:
    done = run(libraries, "-c", ALLOCATE)
    assert done.stdout.split() == [str(72 << 20), "0"], done.stderr[-2000:]


LOAD = """
import sys
from pathlib import Path
from glmserve.engine.runtime.device import open_device
from glmserve.engine.runtime.ort_decoder import open_session
from tests.cuda.rehearsal import Runtime
device, runtime = open_device("cuda"), Runtime()
before = runtime.counts().bytes
session = open_session(Path(sys.argv[1]), device, 1, entries={"ep.cuda.fpa_intb_gemm": "1"})
print(runtime.counts().bytes - before)
"""


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
def test_weights_lie_on_the_device_once(libraries: Path, tmp_path: Path, precision: str) -> None:
    shape = Shape("weights", layers=2, ffn=512, vision_depth=1, vision_hidden=64, vision_heads=1)
    graph = decoder_in(export(write_checkpoint(shape, tmp_path / "checkpoint"), tmp_path / "builds", precision, "same"))
    done = run(libraries, "-c", LOAD, graph)
    assert done.returncode == 0, done.stderr[-2000:]
    planned = weight_bytes(decoders_files(graph.parent))
    assert 0.9 * planned < int(done.stdout) < 1.1 * planned


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_model_whose_layers_are_no_whole_tiles_answers(libraries: Path, tmp_path: Path, precision: str) -> None:
    shape = Shape("odd", layers=2, ffn=96, vision_depth=1, hidden=96, heads=3, kv_heads=1, head_dim=32)
    shape = replace(shape, vision_hidden=64, vision_heads=1)
    build = export(write_checkpoint(shape, tmp_path / "checkpoint"), tmp_path / "builds", precision, "same")
    done = run(libraries, "-m", "tests.cuda.rehearsal", build)
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(json.loads(done.stdout)["endings"]) == {"done"}


def test_a_gpu_that_breaks_ends_its_requests_and_the_engine(libraries: Path, tmp_path: Path) -> None:
    done = run(libraries, "-m", "tests.cuda.breaking", export(ROOT / "demo/checkpoint", tmp_path, "bf16", "same"))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["before"] == "done" and found["is_healthy"] is False
    assert found["running"] == "failed: internal" and found["later"] == "refused: backend_down"


def test_steps_that_cannot_be_captured_are_launched_node_by_node(libraries: Path, tmp_path: Path) -> None:
    done = run(libraries, "-m", "tests.cuda.refusing", export(ROOT / "demo/checkpoint", tmp_path, "bf16", "same"))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert set(found["endings"]) == {"done"} and found["graphs"] == 0 and found["captures_graphs"] is False
    assert "steps of 4 rows cannot be captured" in done.stderr


def test_steps_in_rows_of_either_size_are_captured(libraries: Path, tmp_path: Path) -> None:
    done = run(libraries, "-m", "tests.cuda.two_sizes", export(ROOT / "demo/checkpoint", tmp_path, "bf16", "same"))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert set(found["endings"]) == {"done"} and found["faults"] == []
    assert [warm_up["graphs"] for warm_up in found["warm_ups"]] == [3 + 1]  # of the short rows, and of the long one
    known: list[list[int]] = []
    for step in (step for step in found["steps"] if step["is_decode"]):
        sizes = [step["first_decoded"], step["sizes"][0], step["beside"]]
        is_new = step["beside"] > 0 and sizes not in known  # those of both sizes are captured when they first come
        known.append(sizes)
        assert (step["graphs"], step["graph_launches"]) == (is_new, 1)
        assert is_new or not step["launches"]
    assert {(first, beside) for first, _, beside in known} == {(0, 0), (0, 1), (4, 0)}


def test_no_image_disturbs_a_graph_that_is_being_captured(libraries: Path, tmp_path: Path) -> None:
    done = run(libraries, "-m", "tests.cuda.beside", export(ROOT / "demo/checkpoint", tmp_path, "bf16", "same"))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["faults"] == [] and set(found["endings"]) == {"done"}
    assert found["pictures"] >= 48 and found["graphs"] > 3  # more than buckets


OPEN = "from glmserve.engine.runtime.device import open_device; open_device('cuda')"


def test_a_missing_library_is_told_with_its_remedy(libraries: Path, tmp_path: Path) -> None:
    for library in libraries.glob("*.so.*"):
        if "curand" not in library.name:
            (tmp_path / library.name).symlink_to(library)
    done = run(tmp_path, "-c", OPEN)
    assert done.returncode and "BadArtifact" in done.stderr and "requirements/gpu.txt" in done.stderr
    assert "libcurand.so.10" in done.stdout + done.stderr


def test_a_gpu_that_cannot_be_used_is_told_with_its_number(libraries: Path, tmp_path: Path) -> None:
    build_libraries(tmp_path, devices=0)
    done = run(tmp_path, "-c", OPEN)
    assert done.returncode and "BadArtifact: GPU 0 cannot be used" in done.stderr and "nvidia-smi" in done.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("-DCAPABILITY=100", r"GPU 0 is of compute capability 10\.0, and onnxruntime-gpu .* GLM_ENGINE_DEVICE=cpu"),
        ("-DCAPABILITY=70", r"GPU 0 is of compute capability 7\.0"),
        ("-DDRIVER=12040", r"The NVIDIA driver supports CUDA 12\.4, .* version 13\.0: install driver 580 or newer"),
        ("-DDRIVER=0", r"The NVIDIA driver is missing"),
    ],
)
def test_a_card_or_driver_that_cannot_work_is_refused_by_name(tmp_path: Path, option: str, said: str) -> None:
    build_libraries(tmp_path, 1, option)
    done = run(tmp_path, "-c", OPEN)
    assert done.returncode and re.search(f"BadArtifact: {said}", done.stderr), done.stderr[-2000:]


def test_the_stream_of_tensorrt_for_rtx_copies_captures_and_replays(libraries: Path) -> None:
    done = run(libraries, "-m", "tests.cuda.streams")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["faults"] == [] and found["capability"] == "9.0"
    assert found["came_back"] and found["moved"] and found["zeros"]
    assert (found["graphs"], found["replays"]) == (1, 2) and "CUDA error" in found["refused"]
