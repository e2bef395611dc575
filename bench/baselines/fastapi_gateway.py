"""The least that FastAPI and uvicorn need to serve this model: the work no gateway can leave out, and nothing else.

`python -m bench.baselines.fastapi_gateway --build DIR --port 5002 --triton-port 8001` runs it. It answers POST
/v1/chat/vision, text alone as well, prepares requests with the same code as our gateway, and asks Triton over
grpc.aio. No keys, no limits, no deadline, no admission, no log, no metrics, no stream, no watch over clients, and a
wrong request is a 500.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import grpc  # type: ignore[import-untyped]
import typer
import uvicorn
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.load.in_process import Preparer
from gateway.triton.backend import GenerateRequest
from gateway.triton.tensors import chunk_of, outputs_of, tensors_of
from glmserve import contract

_MIB = 1024**2


class Body(BaseModel):
    """The fields of a request that are read; others are ignored."""

    prompt: str
    image: str | None = None
    max_tokens: int = 512


def create_app(build: Path, triton_port: int) -> FastAPI:
    """The application; its channel lives as long as it does."""
    preparer = Preparer(build)

    @asynccontextmanager
    async def connected(app: FastAPI) -> AsyncIterator[None]:
        options = [("grpc.max_send_message_length", 64 * _MIB)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{triton_port}", options=options) as channel:
            app.state.triton = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            yield

    app = FastAPI(lifespan=connected)

    @app.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"success": True}

    @app.post("/v1/chat/vision")
    async def chat_vision(body: Body) -> dict[str, Any]:
        file = None if body.image is None else base64.b64decode(body.image)
        request = await run_in_threadpool(preparer.prepared, file, body.prompt, body.max_tokens)
        tokens: list[int] = []
        async for message in app.state.triton.ModelStreamInfer(iter([_message(request)])):
            if message.infer_response.outputs:
                tokens += _tokens(message.infer_response)
        usage = {"prompt_tokens": len(request.input_ids), "completion_tokens": len(tokens)}
        return {"result": preparer.tokenizer.decode(tokens).strip(), "success": True, "usage": usage}

    return app


def _message(request: GenerateRequest) -> Any:
    message = service_pb2.ModelInferRequest(model_name=contract.DECODER_MODEL, id=request.request_id)
    for tensor, values in tensors_of(request):
        message.inputs.add(name=tensor.name, datatype=tensor.triton_dtype, shape=values.shape)
        message.raw_input_contents.append(values.tobytes())
    for tensor in outputs_of(request):
        message.outputs.add(name=tensor.name)
    return message


def _tokens(response: Any) -> tuple[int, ...]:
    raw = {output.name: data for output, data in zip(response.outputs, response.raw_output_contents, strict=True)}
    return chunk_of(raw).tokens


def main(
    build: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The build that is served.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback.")] = 5002,
    triton_port: Annotated[int, typer.Option(min=1, max=65535, help="Where Triton answers gRPC.")] = 8001,
) -> None:
    """Serve one build the short way, in one process."""
    uvicorn.run(create_app(build, triton_port), host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    typer.run(main)
