"""A Triton in this process that answers streams as a script says, and the messages it is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.triton.backend import GenerateRequest
from glmserve import contract
from glmserve.contract import Finish, Tensor
from glmserve.model.image_processor import Grid
from glmserve.sampling_parameters import Sampling

WAIT_S = 10
Script = Callable[[Any, Any], Iterator[Any]]


class SmallTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers streams as `script` says; `ended` is set when a client has let go of a stream."""

    def __init__(self) -> None:
        self.script: Script = lambda _request, _context: iter([])
        self.received: list[Any] = []
        self.ended = threading.Event()
        self.ready = {contract.DECODER_MODEL}
        self.cancelled: list[int] = []
        self._told = threading.Condition()

    def ModelStreamInfer(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        for request in requests:
            cancelled = key_of(request, contract.CANCEL)
            if cancelled is not None:
                with self._told:
                    self.cancelled.append(cancelled)
                    self._told.notify_all()
                yield message([], Finish.STOP)
                continue
            context.add_callback(self.ended.set)
            self.received.append(request)
            yield from self.script(request, context)

    def wait_for_cancel(self, request: Any) -> None:
        """Returns once somebody has asked for this request's end."""
        with self._told:
            assert self._told.wait_for(lambda: key_of(request, contract.CANCEL_KEY) in self.cancelled, WAIT_S)

    def ModelReady(self, request: Any, _context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=request.name in self.ready)


def key_of(request: Any, tensor: Tensor) -> int | None:
    """What stands in CANCEL_KEY or CANCEL."""
    for sent, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        if sent.name == tensor.name:
            return int(np.frombuffer(raw, tensor.dtype)[0])
    return None


def a_request(deadline_s: float = WAIT_S, patches: bool = True) -> GenerateRequest:
    return GenerateRequest(
        request_id="r1",
        input_ids=np.arange(5, dtype=np.int64),
        patches=np.arange(32 * 588, dtype=np.uint8).reshape(32, 588) if patches else None,
        grids=(Grid(4, 8),) if patches else (),
        sampling=Sampling(max_tokens=7, temperature=0.5, top_p=0.9, top_k=3, seed=2**62),
        deadline_s=deadline_s,
    )


def message(tokens: list[int], finish: Finish = Finish.RUNNING) -> Any:
    response = service_pb2.ModelStreamInferResponse()
    values: dict[Tensor, list[Any]] = {contract.TOKENS: tokens}
    if finish != Finish.RUNNING:
        values |= {contract.FINISH: [finish], contract.TIMINGS_MS: [1, 2, 3, 4], contract.CACHED_TOKENS: [5]}
    for tensor, value in values.items():
        array = np.array(value, tensor.dtype)
        response.infer_response.outputs.add(name=tensor.name, datatype=tensor.triton_dtype, shape=array.shape)
        response.infer_response.raw_output_contents.append(array.tobytes())
    return response


def with_logprobs(tokens: list[int], rows: list[list[tuple[int, float]]]) -> Any:
    response = message(tokens)
    ids, values = ([[pair[i] for pair in row] for row in rows] for i in (0, 1))
    for tensor, value in ((contract.LOGPROB_IDS, ids), (contract.LOGPROB_VALUES, values)):
        array = np.array(value, tensor.dtype)
        response.infer_response.outputs.add(name=tensor.name, datatype=tensor.triton_dtype, shape=array.shape)
        response.infer_response.raw_output_contents.append(array.tobytes())
    return response


def failure(text: str) -> Any:
    return service_pb2.ModelStreamInferResponse(error_message=text)


def final_empty() -> Any:
    response = service_pb2.ModelStreamInferResponse()
    response.infer_response.parameters["triton_final_response"].bool_param = True
    return response
