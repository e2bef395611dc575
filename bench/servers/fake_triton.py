"""A Triton that computes nothing: it answers every request with the same token, one a beat.

`python -m bench.servers.fake_triton --port 8001 --beat-ms 50` runs it, so that a gateway's own cost can be seen.
Every answer has a beat of its own, which starts with its request; tokens due within the same two milliseconds leave
together, as the tokens of one step of an engine do.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Annotated, Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
import numpy as np
import typer
from tritonclient.grpc import service_pb2

from glmserve import contract
from glmserve.contract import Finish, Tensor

_TOKEN = 300
_TOGETHER_S = 0.002
_SERVICE = "inference.GRPCInferenceService"
_OPTIONS = (("grpc.max_receive_message_length", -1),)


class PacedTriton:
    """Answers the two calls that a gateway makes; messages are serialised once and sent again and again."""

    def __init__(self, beat_s: float) -> None:
        self._beat_s = beat_s
        self._running = _message({contract.TOKENS: [_TOKEN]})
        ending: dict[Tensor, list[Any]] = {contract.TOKENS: [], contract.FINISH: [Finish.LENGTH]}
        self._last = _message({**ending, contract.TIMINGS_MS: [0, 0, 0, 0], contract.CACHED_TOKENS: [0]})
        self._ready: bytes = service_pb2.ModelReadyResponse(ready=True).SerializeToString()

    async def serve(self, port: int) -> None:
        """For ever."""
        server = grpc.aio.server(options=_OPTIONS)
        calls = {
            "ModelReady": grpc.unary_unary_rpc_method_handler(self._is_ready),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._answer),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, calls)])
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    async def _is_ready(self, _request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return self._ready

    async def _answer(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        clock, message = asyncio.get_running_loop().time, await anext(requests)
        due_s = clock()
        for _ in range(_max_tokens(service_pb2.ModelInferRequest.FromString(message))):
            if self._beat_s:
                due_s += self._beat_s
                await asyncio.sleep(math.ceil(due_s / _TOGETHER_S) * _TOGETHER_S - clock())
            await context.write(self._running)
        await context.write(self._last)


def _message(values: dict[Tensor, list[Any]]) -> bytes:
    response = service_pb2.ModelStreamInferResponse()
    for tensor, value in values.items():
        array = np.array(value, tensor.dtype)
        response.infer_response.outputs.add(name=tensor.name, datatype=tensor.triton_dtype, shape=array.shape)
        response.infer_response.raw_output_contents.append(array.tobytes())
    return bytes(response.SerializeToString())


def _max_tokens(request: Any) -> int:
    wanted = contract.SAMPLING_INPUTS["max_tokens"]
    at = [tensor.name for tensor in request.inputs].index(wanted.name)
    return int(np.frombuffer(request.raw_input_contents[at], wanted.dtype)[0])


def main(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback.")] = 8001,
    beat_ms: Annotated[float, typer.Option(min=0, help="Milliseconds between two tokens of an answer.")] = 50.0,
) -> None:
    """Serve answers at a steady beat."""
    asyncio.run(PacedTriton(beat_ms / 1000).serve(port))


if __name__ == "__main__":
    typer.run(main)
