"""Generates through Triton over plain HTTP: one request, and one response with the whole answer in it.

A limit of HTTP: an answer comes in one piece. Use gRPC where you can.

tritonclient writes and parses the messages, and http.client sends them: tritonclient's own transport reads responses of
any size, and leaves each thread that used it with an event loop, a native thread and two file descriptors.
"""

from __future__ import annotations

import http.client
import json
import queue
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
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

from gateway.timeouts import Pulse, Watchdog, hang_up
from gateway.triton.backend import READY_TIMEOUT_S, Chunk, GenerateRequest
from gateway.triton.errors import error_of, log_refusal
from gateway.triton.tensors import cancelling_tensors, chunk_of, keyed_tensors, new_key, outputs_of
from glmserve import contract
from glmserve.contract import Tensor
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError

_GRACE_S = 1.0  # so that the engine's own deadline comes first
_CANCEL_S = 5.0
_LEAVE_S = 2.0  # a cancelled answer ends long before, in the engine's next step
_MOST_CANCELLED = 1000  # in one request
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
        self._given_up = queue.SimpleQueue[int]()
        self._watchdog = Watchdog()
        self._leaver = ThreadPoolExecutor(1, thread_name_prefix="leaver")

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        """The whole answer as one message; raises Cancelled soon after the request is cancelled."""
        key, timeout_s = new_key(), request.deadline_s + _GRACE_S
        hangs_up_at = time.monotonic() + timeout_s + _GRACE_S
        with closing(self._connection(timeout_s)) as connection:
            try:
                connection.connect()
                with self._watchdog.watch(partial(hang_up, connection.sock), timeout_s + _GRACE_S) as pulse:
                    request.cancellation.add_callback(partial(self._give_up, key, pulse))
                    headers = {"traceparent": request.traceparent} if request.traceparent else {}
                    _send(connection, request.request_id, keyed_tensors(request, key), outputs_of(request), headers)
                    with closing(connection.getresponse()) as response:
                        chunk = _answer(response, request)
                yield chunk
            except TimeoutError as error:
                raise DeadlineExceeded from error
            except (OSError, http.client.HTTPException) as error:
                if request.cancellation.is_cancelled:
                    raise Cancelled from error
                if time.monotonic() >= hangs_up_at:  # we did, on a Triton that took no more of the request
                    raise DeadlineExceeded from error
                log_refusal("http", type(error).__name__)
                raise BackendDown from error

    def models_ready(self) -> bool:
        return all(self._is_model_ready(name) for name in contract.MODELS)

    def close(self) -> None:
        """Waits until those that were given up are cancelled; no connection outlives its request."""
        self._leaver.shutdown()
        self._watchdog.close()

    def _give_up(self, key: int, pulse: Pulse) -> None:
        """Runs on any thread while another waits, who gets the engine's error. Triton counts connections that are
        closed before their response, and waits for them when it is told to end: so that is the last resort."""
        if pulse.has_ended:
            return
        pulse.beat(_LEAVE_S)
        self._given_up.put(key)
        with suppress(RuntimeError):  # the backend is being closed
            self._leaver.submit(self._cancel)

    def _cancel(self) -> None:
        """Ends all that were given up by now, of whom the engine knows nothing; else their deadlines end them."""
        keys: list[int] = []
        with suppress(queue.Empty):
            while len(keys) < _MOST_CANCELLED:
                keys.append(self._given_up.get_nowait())
        if not keys:  # another run took them
            return
        with closing(self._connection(_CANCEL_S)) as connection, suppress(OSError, http.client.HTTPException):
            _send(connection, "", cancelling_tensors(*keys), (), {})
            connection.getresponse().read(_MOST_BYTES)

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)

    def _is_model_ready(self, name: str) -> bool:
        with closing(self._connection(READY_TIMEOUT_S)) as connection:
            try:
                connection.request("GET", f"/v2/models/{name}/ready")
                return connection.getresponse().status == HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False


def _send(
    connection: http.client.HTTPConnection,
    request_id: str,
    tensors: list[tuple[Tensor, NDArray[Any]]],
    outputs: tuple[Tensor, ...],
    headers: dict[str, str],
) -> None:
    """Asks glm4v_whole; no outputs are all of them.

    Frees the message once it is sent: 9 MB of patches must not stay while we wait for the answer.
    """
    body, head_length = InferenceServerClient.generate_request_body(
        [
            InferInput(t.name, values.shape, t.triton_dtype).set_data_from_numpy(values.view(_Lent))
            for t, values in tensors
        ],
        [InferRequestedOutput(tensor.name) for tensor in outputs],
        request_id,
    )
    path = f"/v2/models/{contract.WHOLE_MODEL}/infer"
    connection.request("POST", path, body, {**headers, _HEAD_LENGTH: str(head_length)})


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
