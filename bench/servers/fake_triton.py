"""A fake Triton that costs next to nothing: every answer is MAX_TOKENS tokens at a steady beat.

`python -m bench.servers.fake_triton --port 8001 --beat-ms 50` runs it, so that a gateway's own cost can be seen.
Every answer has a beat of its own, which starts with its request; tokens due within the same two milliseconds leave
together, as the tokens of one step of an engine do.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Annotated, Any

import numpy as np
import typer
from tritonclient.grpc import service_pb2

from bench.servers.fake_grpc import Call, Connection, framed
from glmserve import contract
from glmserve.contract import Finish, Tensor

_TOKEN = 300
_TOGETHER_S = 0.002


class PacedTriton:
    """Answers the two calls that a gateway makes; messages are written once and sent again and again."""

    def __init__(self, beat_s: float) -> None:
        self._beat_s = beat_s
        self._running = _message({contract.TOKENS: [_TOKEN]})
        ending: dict[Tensor, list[Any]] = {contract.TOKENS: [], contract.FINISH: [Finish.LENGTH]}
        self._last = _message({**ending, contract.TIMINGS_MS: [0, 0, 0, 0], contract.CACHED_TOKENS: [0]})
        self._ready = framed(service_pb2.ModelReadyResponse(ready=True).SerializeToString())
        self._turns = itertools.count()  # so that the heap never compares calls
        self._due: list[tuple[float, int, Connection, Call, int]] = []  # with the tokens that are left

    def answer(self, connection: Connection, call: Call, request: bytes) -> None:
        """Called for each call; one without tensors asks whether a model is ready."""
        message = service_pb2.ModelInferRequest.FromString(request)
        if not message.inputs:
            connection.send(call, self._ready)
            connection.end(call)
        elif self._beat_s:
            due_s = asyncio.get_running_loop().time() + self._beat_s
            heapq.heappush(self._due, (due_s, next(self._turns), connection, call, _max_tokens(message)))
        else:
            for _ in range(_max_tokens(message)):
                connection.send(call, self._running)
            self._finish(connection, call)

    async def keep_time(self) -> None:
        """Sends every token when it is due, for ever."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for tick in itertools.count(1):
            await asyncio.sleep(max(0.0, begun + tick * _TOGETHER_S - loop.time()))
            now_s, spoken_to = loop.time(), set()
            while self._due and self._due[0][0] <= now_s:
                spoken_to.add(self._send_next())
            for connection in spoken_to:
                connection.flush()

    def _send_next(self) -> Connection:
        due_s, _, connection, call, left = heapq.heappop(self._due)
        if call.is_open:
            connection.send(call, self._running)
            if left > 1:
                heapq.heappush(self._due, (due_s + self._beat_s, next(self._turns), connection, call, left - 1))
            else:
                self._finish(connection, call)
        return connection

    def _finish(self, connection: Connection, call: Call) -> None:
        connection.send(call, self._last)
        connection.end(call)


def _message(values: dict[Tensor, list[Any]]) -> bytes:
    response = service_pb2.ModelStreamInferResponse()
    for tensor, value in values.items():
        array = np.array(value, tensor.dtype)
        response.infer_response.outputs.add(name=tensor.name, datatype=tensor.triton_dtype, shape=array.shape)
        response.infer_response.raw_output_contents.append(array.tobytes())
    return framed(response.SerializeToString())


def _max_tokens(request: Any) -> int:
    wanted = contract.SAMPLING_INPUTS["max_tokens"]
    at = [tensor.name for tensor in request.inputs].index(wanted.name)
    return int(np.frombuffer(request.raw_input_contents[at], wanted.dtype)[0])


async def _serve(port: int, beat_s: float) -> None:
    triton = PacedTriton(beat_s)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(triton.answer), "127.0.0.1", port)
    await (triton.keep_time() if beat_s else server.serve_forever())


def main(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback.")] = 8001,
    beat_ms: Annotated[float, typer.Option(min=0, help="Milliseconds between two tokens of an answer.")] = 50.0,
) -> None:
    """Serve answers at a steady beat."""
    asyncio.run(_serve(port, beat_ms / 1000))


if __name__ == "__main__":
    typer.run(main)
