"""Generates through Triton over plain HTTP: one request, and one response with the whole answer in it.

Limits of HTTP: an answer comes in one piece, and the engine goes on with the answer of a client that left until the
request's deadline. Use gRPC where you can.

tritonclient writes and parses the messages, and http.client sends them: tritonclient's own transport reads responses of
any size, and leaves each thread that used it with an event loop, a native thread and two file descriptors.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator
from contextlib import closing
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from tritonclient.http import (
    InferenceServerClient,
    InferenceServerException,
    InferInput,
    InferRequestedOutput,
    InferResult,
)

from gateway.timeouts import hang_up
from gateway.triton.backend import READY_TIMEOUT_S, Chunk, GenerateRequest
from gateway.triton.errors import error_of, log_refusal
from gateway.triton.tensors import chunk_of, outputs_of, tensors_of
from glmserve import contract
from glmserve.contract import Tensor
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError

_GRACE_S = 1.0  # so that the engine's own deadline comes first
_MOST_BYTES = 16 * 1024**2  # of each answer in a response: 32,768 tokens with 20 log-probabilities each are 5.5 MB
_HEAD_LENGTH = "Inference-Header-Content-Length"  # of the JSON that stands before the tensors' bytes
# What tritonclient, which checks nothing, raises when the response is not from a Triton with our contract.
_NOT_OURS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    InferenceServerException,
)


class TritonHttpBackend:
    """One Triton over HTTP; each request has a connection of its own."""

    def __init__(self, url: str) -> None:
        """`url` is http://host:port; connects with the first call."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        """The whole answer as one message; raises Cancelled as soon as the request is cancelled."""
        with closing(self._connection(request.deadline_s + _GRACE_S)) as connection:
            try:
                connection.connect()
                request.cancellation.add_callback(partial(hang_up, connection.sock))
                _send(connection, request)
                with closing(connection.getresponse()) as response:
                    chunk = _answer(response, request)
                yield chunk
            except TimeoutError as error:
                raise DeadlineExceeded from error
            except (OSError, http.client.HTTPException) as error:
                if request.cancellation.is_cancelled:
                    raise Cancelled from error
                log_refusal("http", type(error).__name__)
                raise BackendDown from error

    def models_ready(self) -> bool:
        return all(self._is_model_ready(name) for name in contract.MODELS)

    def close(self) -> None:
        """Does nothing: no connection outlives its request."""

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)

    def _is_model_ready(self, name: str) -> bool:
        with closing(self._connection(READY_TIMEOUT_S)) as connection:
            try:
                connection.request("GET", f"/v2/models/{name}/ready")
                return connection.getresponse().status == HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False


def _send(connection: http.client.HTTPConnection, request: GenerateRequest) -> None:
    """Frees the message once it is sent: 9 MB of patches must not stay while we wait for the answer."""
    body, head_length = _message(request)
    headers = {_HEAD_LENGTH: str(head_length)}
    if request.traceparent:
        headers["traceparent"] = request.traceparent
    connection.request("POST", f"/v2/models/{contract.WHOLE_MODEL}/infer", body, headers)


def _message(request: GenerateRequest) -> tuple[bytes, int]:
    """An inference request (JSON, then the bytes of its tensors), and the length of the JSON."""
    inputs = [
        InferInput(tensor.name, values.shape, tensor.triton_dtype).set_data_from_numpy(values.view(_Lent))
        for tensor, values in tensors_of(request)
    ]
    outputs = [InferRequestedOutput(tensor.name) for tensor in outputs_of(request)]
    body, head_length = InferenceServerClient.generate_request_body(inputs, outputs, request.request_id)
    return body, head_length


class _Lent(np.ndarray):
    """An array that tritonclient reads in place: the message copies an image once, not twice."""

    def tobytes(self, _order: object = None) -> memoryview:  # type: ignore[override]
        return self.reshape(-1).view(np.uint8).data


def _answer(response: http.client.HTTPResponse, request: GenerateRequest) -> Chunk:
    body = response.read(_MOST_BYTES * max(1, request.answers))
    if request.cancellation.is_cancelled:  # a connection that was shut down looks like the end of the response
        raise Cancelled
    try:
        if response.status != HTTPStatus.OK:
            raise error_of(str(json.loads(body)["error"]))
        head_length = response.getheader(_HEAD_LENGTH)
        result = InferenceServerClient.parse_response_body(body, header_length=head_length)
        return chunk_of(_tensors(result, outputs_of(request)))
    except _NOT_OURS as error:
        raise GlmServeError from error


def _tensors(result: InferResult, wanted: tuple[Tensor, ...]) -> dict[str, NDArray[Any]]:
    """The `wanted` tensors that are in the result; raises GlmServeError if one has not the contract's type."""
    described = {tensor: result.get_output(tensor.name) for tensor in wanted}
    came = {tensor: output["datatype"] for tensor, output in described.items() if output is not None}
    if any(datatype != tensor.triton_dtype for tensor, datatype in came.items()):
        raise GlmServeError
    return {tensor.name: result.as_numpy(tensor.name) for tensor in came}
