"""A real tritonserver: it starts, streams, keeps its doors shut, and leaves nothing behind."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import threading
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from servers import READY_S, is_alive, server_of
from stand_in_build import describe_again
from structlog.testing import capture_logs
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.usage import descendants
from gateway.triton.backend import GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from glmserve.build.manifest import REPOSITORY_FOLDER
from glmserve.contract import Finish
from glmserve.errors import BackendDown, DeadlineExceeded, Overloaded
from glmserve.model.image_processor import Grid
from glmserve.sampling_parameters import Sampling
from launcher.triton_server import TritonFailed, TritonServer

pytestmark = pytest.mark.triton
WAIT_S = 20


def a_request(max_tokens: int = 5, seed: int = 0, deadline_s: float = WAIT_S) -> GenerateRequest:
    return GenerateRequest(
        "r1", np.arange(4, dtype=np.int64), None, (), Sampling(max_tokens=max_tokens, seed=seed), deadline_s
    )


@pytest.fixture
def backend(triton: TritonServer) -> Generator[TritonBackend]:
    backend = TritonBackend(triton.grpc_url, response_timeout_s=5)
    yield backend
    backend.close()


def test_the_model_becomes_ready_in_this_python(backend: TritonBackend) -> None:
    assert backend.models_ready()


def test_tokens_stream_in_order_to_the_finish(backend: TritonBackend) -> None:
    chunks = list(backend.generate(a_request(max_tokens=30)))
    assert [t for c in chunks for t in c.tokens] == list(range(300, 330))
    assert chunks[-1].finish == Finish.STOP


def test_many_streams_share_one_channel(backend: TritonBackend) -> None:
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(len(list(backend.generate(a_request(20)))))) for _ in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert counts == [21] * 24


def test_the_buffers_of_an_image_are_used_again(triton: TritonServer, backend: TritonBackend) -> None:
    patches = np.zeros((3566, 588), np.uint8)  # two megabytes, which pass through several buffers
    request = replace(a_request(1), patches=patches, grids=(Grid(1, len(patches)),))

    def faults() -> int:
        return int(Path(f"/proc/{triton.pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[7])

    for _ in range(40):  # several threads' buffers
        list(backend.generate(request))
    counted = [faults()]
    for _ in range(20):
        list(backend.generate(request))
        counted.append(faults())
    # The median, since a thread that meets its first image only now takes new pages once. Buffers that are given back
    # instead of being used again cost 350 faults each time.
    assert np.median(np.diff(counted)) < 50


def test_an_error_of_the_engine_arrives_as_itself(backend: TritonBackend) -> None:
    with pytest.raises(Overloaded, match="Every place is taken"):
        list(backend.generate(a_request(seed=2)))


def test_closing_an_answer_cancels_it_inside_the_model(backend: TritonBackend) -> None:
    def cancelled() -> int:
        return next(backend.generate(a_request(seed=1))).tokens[0]

    before, give_up = cancelled(), time.monotonic() + WAIT_S
    chunks = backend.generate(a_request(max_tokens=10_000))
    next(chunks)
    chunks.close()
    while cancelled() == before:
        assert time.monotonic() < give_up
    assert cancelled() == before + 1


def test_a_deadline_ends_a_long_answer(backend: TritonBackend) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        list(backend.generate(a_request(max_tokens=10_000, deadline_s=0.5)))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/repository/models/glm4v/unload"])
def test_the_model_repository_is_closed(triton: TritonServer, path: str) -> None:
    assert status_of(triton, "POST", path) in (400, 403)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/systemsharedmemory/status",
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/models/stats",
        "/v2/models/glm4v/config",
    ],
)
def test_the_other_doors_are_closed_too(triton: TritonServer, path: str) -> None:
    assert status_of(triton, "GET", path) in (400, 403)


def test_grpc_closes_the_same_doors(triton: TritonServer) -> None:
    with grpc.insecure_channel(triton.grpc_url.removeprefix("grpc://")) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for call, request in (
            (stub.RepositoryIndex, service_pb2.RepositoryIndexRequest()),
            (stub.SystemSharedMemoryStatus, service_pb2.SystemSharedMemoryStatusRequest()),
            (stub.LogSettings, service_pb2.LogSettingsRequest()),
        ):
            with pytest.raises(grpc.RpcError):
                call(request, timeout=WAIT_S)


def test_metrics_are_served(triton: TritonServer) -> None:
    host, port = triton.metrics_url.removeprefix("http://").removesuffix("/metrics").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
    connection.request("GET", "/metrics")
    assert b"nv_inference_request_success" in connection.getresponse().read()
    connection.close()


def test_the_end_leaves_no_process_no_folder_and_no_shared_memory(stand_in_build: Path) -> None:
    server = server_of(stand_in_build / REPOSITORY_FOLDER)
    server.start()
    server.wait_ready(READY_S)
    assert server.pid is not None
    processes, folder = [server.pid, *descendants(server.pid)], server.log_path.parent
    assert len(processes) >= 3  # the server and a stub for each model
    assert shared_memory_of(folder)
    server.stop()
    assert not [pid for pid in processes if is_alive(pid)]
    assert not folder.exists()
    assert not shared_memory_of(folder)


def shared_memory_of(folder: Path) -> set[Path]:
    """The regions of the Triton with this folder."""
    return set(Path("/dev/shm").glob(f"glm_{folder.name.removeprefix('glm-triton-')}_*"))


def test_a_killed_server_ends_its_streams_at_once(stand_in_build: Path) -> None:
    with server_of(stand_in_build / REPOSITORY_FOLDER) as server:
        server.wait_ready(READY_S)
        backend = TritonBackend(server.grpc_url, response_timeout_s=10)
        chunks = backend.generate(a_request(max_tokens=10_000))
        next(chunks)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        killed = time.monotonic()
        with capture_logs(), pytest.raises(BackendDown):
            list(chunks)
        assert time.monotonic() - killed < 1
        assert not backend.models_ready()
        backend.close()


def test_a_frozen_model_ends_its_stream_soon_after_the_silence_that_is_allowed(stand_in_build: Path) -> None:
    with server_of(stand_in_build / REPOSITORY_FOLDER) as server:
        server.wait_ready(READY_S)
        backend = TritonBackend(server.grpc_url, response_timeout_s=1)
        chunks = backend.generate(a_request(max_tokens=10_000))
        next(chunks)
        assert server.pid is not None
        for stub in descendants(server.pid):
            os.kill(stub, signal.SIGSTOP)
        started = time.monotonic()
        try:
            with capture_logs(), pytest.raises((DeadlineExceeded, BackendDown)):  # Triton may notice first
                list(chunks)
            assert time.monotonic() - started < 3
        finally:
            os.kill(server.pid, signal.SIGKILL)  # a server with a frozen model waits its whole exit timeout
            backend.close()


def test_a_model_that_cannot_load_is_told_with_the_end_of_the_log(stand_in_build: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(stand_in_build, tmp_path / "build"))
    repository = broken / REPOSITORY_FOLDER
    (repository / "glm4v" / "1" / "model.py").write_text("raise RuntimeError('no weights here')", "utf-8")
    describe_again(broken)
    with server_of(repository) as server, pytest.raises(TritonFailed, match="no weights here"):
        server.wait_ready(READY_S)


def status_of(triton: TritonServer, method: str, path: str) -> int:
    connection = http.client.HTTPConnection(triton.host, triton.http_port, timeout=WAIT_S)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    finally:
        connection.close()
