"""Generates through Triton over gRPC: one stream a request on one shared channel, every wait bounded."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import structlog
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.backend import Chunk, GenerateRequest, Ranked
from gateway.watchdog import Pulse, Watchdog
from glmserve import contract
from glmserve.contract import Finish, Tensor
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError, Overloaded, from_wire

READY_TIMEOUT_S = 2.0
_DRAIN_TIMEOUT_S = 1.0
_GRACE_S = 1.0  # so that gRPC's own deadline comes first
_MIB = 1024**2
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", 512 * _MIB),  # 16 pictures of 6144 tokens are 231 MB
    ("grpc.max_receive_message_length", 16 * _MIB),
    ("grpc.enable_http_proxy", 0),
    ("grpc.lb_policy_name", "round_robin"),  # connects again by itself
    ("grpc.initial_reconnect_backoff_ms", 100),  # the default grows to two minutes after a restart of Triton
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_OUTPUTS = (contract.TOKENS, contract.FINISH, contract.TIMINGS_MS, contract.CACHED_TOKENS)
_LOGPROB_OUTPUTS = (contract.LOGPROB_IDS, contract.LOGPROB_VALUES)
_DOWN = ("unknown model", "no available versions", "not ready", "not found", "stub process", "unavailable")
_BY_STATUS: dict[grpc.StatusCode, type[GlmServeError]] = {
    grpc.StatusCode.UNAVAILABLE: BackendDown,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.NOT_FOUND: BackendDown,
    grpc.StatusCode.UNKNOWN: BackendDown,
    grpc.StatusCode.ABORTED: BackendDown,
}


class TritonBackend:
    """The Backend that Triton serves; made after a worker has forked, because gRPC's threads do not survive a fork."""

    def __init__(self, url: str, response_timeout_s: float) -> None:
        """`url` is grpc://host:port; nothing is connected until the first call."""
        self._channel = grpc.insecure_channel(url.removeprefix("grpc://"), options=_CHANNEL_OPTIONS)
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._response_timeout_s = response_timeout_s
        self._watchdog = Watchdog()

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        """The answer's messages; silence between two that is longer than the response timeout is a DeadlineExceeded.

        The first message may wait in line for as long as the deadline allows.
        """
        metadata = (("traceparent", request.traceparent),) if request.traceparent else None
        call = self._stub.ModelStreamInfer(iter([_message(request)]), timeout=request.deadline_s, metadata=metadata)
        request.cancellation.then(call.cancel)
        try:
            with self._watchdog.watch(call.cancel, request.deadline_s + _GRACE_S) as pulse:
                yield from self._chunks(call, pulse)
        finally:
            call.cancel()  # does nothing to a call that has ended

    def models_ready(self) -> bool:
        return all(self._is_model_ready(name) for name in (contract.DECODER_MODEL, contract.VISION_MODEL))

    def close(self) -> None:
        self._channel.close()
        self._watchdog.close()

    def _chunks(self, call: Iterator[Any], pulse: Pulse) -> Generator[Chunk]:
        try:
            for message in call:
                pulse.beat(self._response_timeout_s)
                if message.error_message:
                    raise _from_text(message.error_message)
                if not message.infer_response.outputs:
                    continue  # Triton's empty final response
                chunk = _chunk(message.infer_response)
                yield chunk
                if chunk.finish != Finish.RUNNING:
                    pulse.beat(_DRAIN_TIMEOUT_S)
                    _drain(call)
                    return
        except grpc.RpcError as error:
            if pulse.is_dead:
                raise DeadlineExceeded from error
            raise _from_rpc(error) from error
        raise BackendDown  # the stream ended before the answer did

    def _is_model_ready(self, name: str) -> bool:
        try:
            request = service_pb2.ModelReadyRequest(name=name)
            return bool(self._stub.ModelReady(request, timeout=READY_TIMEOUT_S).ready)
        except grpc.RpcError:
            return False


def _drain(call: Iterator[Any]) -> None:
    """Reads a finished answer's stream to its end: cancelling it instead would race with Triton's own clean-up."""
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass  # the answer is complete; how its stream ended changes nothing


def _message(request: GenerateRequest) -> Any:
    message = service_pb2.ModelInferRequest(model_name=contract.DECODER_MODEL, id=request.request_id)
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    for tensor, values in _tensors(request):
        message.inputs.add(name=tensor.name, datatype=tensor.triton_dtype, shape=values.shape)
        message.raw_input_contents.append(np.ascontiguousarray(values, tensor.dtype).tobytes())
    for tensor in _OUTPUTS + (_LOGPROB_OUTPUTS if request.logprobs >= 0 else ()):
        message.outputs.add(name=tensor.name)
    return message


def _tensors(request: GenerateRequest) -> list[tuple[Tensor, NDArray[Any]]]:
    """What the contract demands, and of the optional tensors those that say anything."""
    tensors: list[tuple[Tensor, NDArray[Any]]] = [(contract.INPUT_IDS, request.input_ids)]
    if request.patches is not None:
        grids = np.array([[grid.rows, grid.columns] for grid in request.grids])  # [images, 2]
        tensors += [(contract.PATCHES, request.patches), (contract.GRIDS, grids)]
    scalars: dict[Tensor, float] = {
        contract.MAX_TOKENS: request.max_tokens,
        contract.TEMPERATURE: request.temperature,
        contract.TOP_P: request.top_p,
        contract.TOP_K: request.top_k,
        contract.SEED: request.seed,
        contract.DEADLINE_MS: max(1, int(request.deadline_s * 1000)),
    }
    optional: list[tuple[Tensor, float, float]] = [
        (contract.MIN_P, request.min_p, 0),
        (contract.REPETITION_PENALTY, request.repetition_penalty, 1),
        (contract.LOGPROBS, request.logprobs, -1),
        (contract.CACHE_SCOPE, request.cache_scope, 0),
    ]
    scalars |= {tensor: value for tensor, value, default in optional if value != default}
    tensors += [(tensor, np.array([value])) for tensor, value in scalars.items()]
    if request.stop_ids:
        tensors.append((contract.STOP_IDS, np.array(request.stop_ids)))
    if request.grammar:
        tensors.append((contract.GRAMMAR, np.frombuffer(request.grammar, np.uint8)))
    return tensors


def _chunk(response: Any) -> Chunk:
    raw = {output.name: data for output, data in zip(response.outputs, response.raw_output_contents, strict=True)}
    try:
        tokens = tuple(np.frombuffer(raw[contract.TOKENS.name], contract.TOKENS.dtype).tolist())
        logprobs = _logprobs(raw, len(tokens))
        if contract.FINISH.name not in raw:
            return Chunk(tokens, Finish.RUNNING, logprobs=logprobs)
        finish, timings, cached = (
            np.frombuffer(raw[t.name], t.dtype) for t in (contract.FINISH, contract.TIMINGS_MS, contract.CACHED_TOKENS)
        )
        return Chunk(tokens, Finish(int(finish[0])), tuple(timings.tolist()), int(cached[0]), logprobs)
    except (KeyError, ValueError, IndexError) as error:
        raise GlmServeError from error  # another contract version answered


def _logprobs(raw: dict[str, bytes], tokens: int) -> tuple[Ranked, ...]:
    if contract.LOGPROB_IDS.name not in raw or not tokens:
        return ()
    ids, values = (np.frombuffer(raw[t.name], t.dtype).reshape(tokens, -1).tolist() for t in _LOGPROB_OUTPUTS)
    return tuple(tuple(zip(*row, strict=True)) for row in zip(ids, values, strict=True))


def _from_text(text: str) -> GlmServeError:
    ours = from_wire(text)
    if ours is not None:
        return ours
    _log_refusal("stream", text)
    return BackendDown() if any(words in text.lower() for words in _DOWN) else GlmServeError()


def _from_rpc(error: grpc.RpcError) -> GlmServeError:
    status, details = error.code(), error.details() or ""
    if status not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
        _log_refusal(status.name, details)
    ours = from_wire(details)
    if ours is not None:
        return ours
    return _BY_STATUS.get(status, GlmServeError)()


def _log_refusal(status: str, text: str) -> None:
    structlog.get_logger().warning("triton_refused", status=status, text=text[:200])
