"""Writes requests to Triton as bytes, and reads its messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from gateway.triton.backend import Chunk, GenerateRequest
from gateway.triton.errors import error_of
from gateway.triton.tensors import chunk_of, outputs_of, tensors_of
from glmserve import contract
from glmserve.contract import Tensor
from glmserve.errors import GlmServeError

NOTHING = object()
"""Triton's empty final response."""
_RAW_INPUT = bytes([service_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2])  # a field of bytes


def asking(request: GenerateRequest, key: int) -> bytes:
    """The request for an answer; a `cancelling` request with the same key ends it."""
    tensors = [*tensors_of(request), (contract.CANCEL_KEY, np.array([key], np.int64))]
    return _wire(request.request_id, tensors, outputs_of(request))


def cancelling(key: int) -> bytes:
    """The request that cancels another one; Triton demands every tensor that is not optional."""
    tensors = [
        (tensor, np.zeros(1, tensor.dtype))  # the shape of them all
        for tensor in contract.DECODER_INPUTS
        if not tensor.is_optional
    ]
    return _wire("", [*tensors, (contract.CANCEL, np.array([key], np.int64))], ())


def read(data: bytes) -> Chunk | GlmServeError | object:
    """A message from Triton: a chunk, an error, or nothing. Returns errors, because gRPC allows no exception here."""
    message = service_pb2.ModelStreamInferResponse.FromString(data)
    if message.error_message:
        return error_of(message.error_message)
    response = message.infer_response
    if not response.outputs:
        return NOTHING
    try:
        raw = {output.name: data for output, data in zip(response.outputs, response.raw_output_contents, strict=True)}
        return chunk_of(raw)
    except (ValueError, GlmServeError) as error:  # of another contract version
        return error if isinstance(error, GlmServeError) else GlmServeError(str(error))


def _wire(request_id: str, tensors: list[tuple[Tensor, NDArray[Any]]], outputs: tuple[Tensor, ...]) -> bytes:
    """A serialised ModelInferRequest. It copies tensors once; protobuf would copy 9 MB of patches three times."""
    message = service_pb2.ModelInferRequest(model_name=contract.DECODER_MODEL, id=request_id)
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    raw: list[Any] = []
    for tensor, values in tensors:
        message.inputs.add(name=tensor.name, datatype=tensor.triton_dtype, shape=values.shape)
        raw += [_RAW_INPUT, _varint(values.nbytes), values]
    for tensor in outputs:
        message.outputs.add(name=tensor.name)
    return b"".join([message.SerializeToString(), *raw])


def _varint(number: int) -> bytes:
    """A protobuf varint: seven bits per byte, and the highest bit set in all but the last."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
