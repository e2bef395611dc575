"""A small Triton in this process, and gRPC clients of it whose answers are read either way."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import grpc
import pytest
from small_triton import SmallTriton
from tritonclient.grpc import service_pb2_grpc

import gateway.triton.grpc_client
import gateway.triton.grpc_streams
from gateway.triton.backend import Chunk, GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from gateway.triton.grpc_streams import StreamThread
from gateway.triton.stream_buffer import StreamBuffer

WAIT_S = 10


@pytest.fixture
def triton() -> Generator[tuple[SmallTriton, str]]:
    servicer = SmallTriton()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"grpc://127.0.0.1:{port}"
    server.stop(None).wait(WAIT_S)


class StreamedBackend(TritonBackend):
    """Asks for everything as for a stream, which one thread reads."""

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        return super().generate(replace(request, stream_buffer=StreamBuffer()))


@pytest.fixture(scope="module")
def streams() -> Generator[StreamThread]:
    with closing(StreamThread()) as thread:
        yield thread


Connect = Callable[..., TritonBackend]


@pytest.fixture(params=["read by its own thread", "read by one thread"])
def connect(request: pytest.FixtureRequest, streams: StreamThread) -> Generator[Connect]:
    """Opens backends whose answers are read either way, and closes them."""
    opened: list[TritonBackend] = []

    def opens(url: str, response_timeout_s: float) -> TritonBackend:
        is_streamed = request.param == "read by one thread"
        opened.append(
            StreamedBackend(url, response_timeout_s, streams) if is_streamed else TritonBackend(url, response_timeout_s)
        )
        return opened[-1]

    yield opens
    for backend in opened:
        backend.close()


@pytest.fixture
def backend(triton: tuple[SmallTriton, str], connect: Connect) -> TritonBackend:
    return connect(triton[1], 5)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's last resorts come after a tenth of their time, for tests in which Triton does not react."""
    for module in (gateway.triton.grpc_client, gateway.triton.grpc_streams):
        monkeypatch.setattr(module, "_LEAVE_S", 0.2)
        monkeypatch.setattr(module, "_GRACE_S", 0.1)
