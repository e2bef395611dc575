"""A stand-in for Triton that costs next to nothing: every answer is MAX_TOKENS tokens at a steady beat.

`python -m bench.paced_triton --port 8001 --beat-ms 50` runs it, so that what a gateway costs can be seen by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import typer
from tritonclient.grpc import service_pb2

from glmserve import contract
from glmserve.contract import Finish, Tensor

_SERVICE = "/inference.GRPCInferenceService/"
_TOKEN = 300
_MIB = 1024**2


class PacedTriton(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers the two calls that a gateway makes; messages are written once and sent again and again."""

    def __init__(self, beat_s: float) -> None:
        self._beat_s = beat_s
        self._running = _message({contract.TOKENS: [_TOKEN]})
        ending: dict[Tensor, list[Any]] = {contract.TOKENS: [], contract.FINISH: [Finish.LENGTH]}
        self._last = _message({**ending, contract.TIMINGS_MS: [0, 0, 0, 0], contract.CACHED_TOKENS: [0]})
        self._ready = bytes(service_pb2.ModelReadyResponse(ready=True).SerializeToString())

    def service(self, details: Any) -> Any:
        """grpc's way of asking who handles a call."""
        if details.method == f"{_SERVICE}ModelStreamInfer":
            read = service_pb2.ModelInferRequest.FromString
            return grpc.unary_stream_rpc_method_handler(self._stream, request_deserializer=read)
        return grpc.unary_unary_rpc_method_handler(self._is_ready)

    async def _is_ready(self, _request: bytes, _context: Any) -> bytes:
        return self._ready

    async def _stream(self, request: Any, _context: Any) -> AsyncIterator[bytes]:
        due = asyncio.get_running_loop().time()
        for _ in range(_max_tokens(request)):
            due += self._beat_s
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            yield self._running
        yield self._last


def _message(values: dict[Tensor, list[Any]]) -> bytes:
    response = service_pb2.ModelStreamInferResponse()
    for tensor, value in values.items():
        array = np.array(value, tensor.dtype)
        response.infer_response.outputs.add(name=tensor.name, datatype=tensor.triton_dtype, shape=array.shape)
        response.infer_response.raw_output_contents.append(array.tobytes())
    return bytes(response.SerializeToString())


def _max_tokens(request: Any) -> int:
    at = [tensor.name for tensor in request.inputs].index(contract.MAX_TOKENS.name)
    return int(np.frombuffer(request.raw_input_contents[at], contract.MAX_TOKENS.dtype)[0])


async def _serve(port: int, beat_s: float) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 * _MIB)])
    server.add_generic_rpc_handlers((PacedTriton(beat_s),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback.")] = 8001,
    beat_ms: Annotated[float, typer.Option(min=0, help="Milliseconds between two tokens of an answer.")] = 50.0,
) -> None:
    """Serve answers at a steady beat."""
    asyncio.run(_serve(port, beat_ms / 1000))


if __name__ == "__main__":
    typer.run(main)
