"""Triton's side of the engine: tensors in, a stream of tokens out."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from glmserve.contract import IMAGE_FEATURES, VISION_INPUTS, VISION_MODEL
from glmserve.engine.metrics import ALL_METRICS, Metric
from glmserve.engine.request import Event, Failed
from glmserve.engine.server import EngineServer
from glmserve.engine.triton.tensors import kept, message
from glmserve.errors import BackendDown, GlmServeError, to_wire


class TritonPythonModel:
    open_engine = staticmethod(EngineServer.open)

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(level=logging.INFO)
        self._metrics = {metric: _register(metric) for metric in ALL_METRICS}
        folder = Path(args["model_repository"], args["model_version"])
        self._serving = self.open_engine(folder, _ask_triton, self._publish)

    def execute(self, requests: list) -> None:
        for request in requests:
            sender = request.get_response_sender()
            tensors = {tensor.name(): kept(tensor.as_numpy()) for tensor in request.inputs()}
            self._serving.accept(tensors, lambda events, to=sender: _send(to, events), sender.is_cancelled)

    def is_ready(self) -> bool:
        return self._serving.is_healthy

    def finalize(self) -> None:
        self._serving.close()

    def _publish(self, metric: Metric, amount: float) -> None:
        target = self._metrics[metric][1]
        {"counter": target.increment, "gauge": target.set, "histogram": target.observe}[metric.kind](amount)


def _register(metric: Metric) -> tuple:
    kind = getattr(pb_utils.MetricFamily, metric.kind.upper())
    family = pb_utils.MetricFamily(name=metric.name, description=metric.description, kind=kind)
    options = {"buckets": list(metric.buckets)} if metric.buckets else {}
    return family, family.Metric(**options)  # Triton forgets a family that Python has dropped


def _ask_triton(inputs: tuple[np.ndarray, ...]) -> np.ndarray:
    """Encodes one image with one of Triton's own backends, where the build has a model for that."""
    tensors = [pb_utils.Tensor(spec.name, array[None]) for spec, array in zip(VISION_INPUTS, inputs, strict=True)]
    answer = pb_utils.InferenceRequest(
        model_name=VISION_MODEL, requested_output_names=[IMAGE_FEATURES.name], inputs=tensors
    ).exec()
    if answer.has_error():
        raise BackendDown("The image encoder failed to answer.")
    return kept(pb_utils.get_output_tensor_by_name(answer, IMAGE_FEATURES.name).as_numpy())[0]


def _send(sender: pb_utils.InferenceResponseSender, events: list[Event]) -> None:
    last = events[-1]
    final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last.is_last else 0
    good = [event for event in events if not isinstance(event, Failed)]
    if good:
        response = pb_utils.InferenceResponse([pb_utils.Tensor(n, a) for n, a in message(good).items()])
        sender.send(response, 0 if isinstance(last, Failed) else final)
    if isinstance(last, Failed):
        error = pb_utils.TritonError(to_wire(last.error), _triton_code(last.error))
        sender.send(pb_utils.InferenceResponse([], error), final)


def _triton_code(error: GlmServeError) -> int:
    codes = {400: pb_utils.TritonError.INVALID_ARG, 499: pb_utils.TritonError.CANCELLED}
    return codes.get(
        error.status, pb_utils.TritonError.UNAVAILABLE if error.may_retry else pb_utils.TritonError.INTERNAL
    )
