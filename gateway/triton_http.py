"""Generates through Triton over plain HTTP: one request, and one response with the whole answer in it.

What HTTP cannot do: answers come in one piece, and a client that leaves is let go at once while the engine learns of
it only by the request's deadline. Where gRPC can get through, take gRPC.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Generator
from contextlib import closing, suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from gateway.backend import READY_TIMEOUT_S, Chunk, GenerateRequest
from gateway.tensors import chunk_of, outputs_of, tensors_of
from gateway.triton_errors import error_of, log_refusal
from glmserve import contract
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError

_GRACE_S = 1.0  # so that the engine's own deadline comes first
_MOST_BYTES = 16 * 1024**2  # of a response: 32,768 tokens with 20 log-probabilities each are 5.5 MB
_HEAD_LENGTH = "Inference-Header-Content-Length"  # of the JSON that stands before the tensors' bytes


class TritonHttpBackend:
    """The Backend that Triton serves over HTTP; each request has a connection of its own."""

    def __init__(self, url: str) -> None:
        """`url` is http://host:port; nothing is connected until the first call."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        """The whole answer as one message; cancelling lets go of it at once."""
        with closing(self._connection(request.deadline_s + _GRACE_S)) as connection:
            try:
                connection.connect()
                request.cancellation.then(lambda: _hang_up(connection.sock))
                yield _answer(connection, request)
            except TimeoutError as error:
                raise DeadlineExceeded from error
            except (OSError, http.client.HTTPException) as error:
                if request.cancellation.said.is_set():
                    raise Cancelled from error
                log_refusal("http", type(error).__name__)
                raise BackendDown from error

    def models_ready(self) -> bool:
        return all(self._is_model_ready(name) for name in contract.MODELS)

    def close(self) -> None:
        """Nothing is kept between requests."""

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)

    def _is_model_ready(self, name: str) -> bool:
        with closing(self._connection(READY_TIMEOUT_S)) as connection:
            try:
                connection.request("GET", f"/v2/models/{name}/ready")
                return connection.getresponse().status == HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False


def _answer(connection: http.client.HTTPConnection, request: GenerateRequest) -> Chunk:
    head, tensors = _message(request)
    headers = {_HEAD_LENGTH: str(len(head)), "Content-Length": str(len(head) + sum(map(len, tensors)))}
    if request.traceparent:
        headers["traceparent"] = request.traceparent
    connection.request("POST", f"/v2/models/{contract.WHOLE_MODEL}/infer", iter([head, *tensors]), headers)
    response = connection.getresponse()
    body = response.read(_MOST_BYTES)
    try:
        head_length = int(response.getheader(_HEAD_LENGTH) or len(body))
        values = json.loads(body[:head_length])
        if response.status != HTTPStatus.OK:
            raise error_of(str(values["error"]))
        return chunk_of(_tensors(values["outputs"], body[head_length:]))
    except (ValueError, KeyError, TypeError) as error:  # something else than a Triton of our contract has answered
        raise GlmServeError from error


def _message(request: GenerateRequest) -> tuple[bytes, list[bytes]]:
    """The JSON of an inference request, and the bytes of its tensors, which follow it."""
    inputs: list[dict[str, Any]] = []
    tensors: list[bytes] = []
    for tensor, values in tensors_of(request):
        tensors.append(values.tobytes())
        size = {"binary_data_size": len(tensors[-1])}
        described = {"name": tensor.name, "datatype": tensor.triton_dtype, "shape": values.shape, "parameters": size}
        inputs.append(described)
    outputs = [{"name": tensor.name, "parameters": {"binary_data": True}} for tensor in outputs_of(request)]
    return json.dumps({"id": request.request_id, "inputs": inputs, "outputs": outputs}).encode(), tensors


def _tensors(outputs: list[dict[str, Any]], data: bytes) -> dict[str, bytes]:
    """The bytes of each tensor: they stand one after another in the order of the JSON."""
    raw: dict[str, bytes] = {}
    at = 0
    for output in outputs:
        size = int(output["parameters"]["binary_data_size"])
        raw[output["name"]] = data[at : at + size]
        at += size
    return raw


def _hang_up(connection: socket.socket | None) -> None:
    """Ends a wait on another thread; closing the socket would not."""
    with suppress(OSError):
        if connection is not None:
            connection.shutdown(socket.SHUT_RDWR)
