"""The script this model's users serve it with today: Flask's own server and transformers, one request at a time.

`python -m bench.baselines.flask_transformers --checkpoint DIR --port 5001` runs it. It answers the POST
/v1/chat/vision of our gateway, and adds to each answer the seconds from the request's arrival to
the first token.
"""

from __future__ import annotations

import base64
import io
import logging
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from flask import Flask, Response, jsonify, request
from PIL import Image
from transformers import AutoTokenizer, Glm4vForConditionalGeneration
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil

_IMAGE = "<|image|>"


class FirstToken:
    """A streamer for `generate` that notes when the first new token came; the prompt comes before it."""

    def __init__(self) -> None:
        self.at_s = 0.0
        self._calls = 0

    def put(self, _tokens: torch.Tensor) -> None:
        self._calls += 1
        if self._calls == 2:
            self.at_s = time.perf_counter()

    def end(self) -> None:
        """The answer is complete; nothing to do."""


class Model:
    """The checkpoint in fp32 with its tokenizer and image processor."""

    def __init__(self, checkpoint: Path) -> None:
        loaded: Any = Glm4vForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
        self._model = loaded.eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self._processor: Any = Glm46VImageProcessorPil.from_pretrained(checkpoint)

    def inputs(self, image: Image.Image, prompt: str) -> dict[str, torch.Tensor]:
        """What `generate` takes: the rendered chat with a placeholder for each image token, and the image's patches."""
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        seen = self._processor(images=[image], return_tensors="pt")
        places = int(seen["image_grid_thw"].prod()) // self._processor.merge_size**2
        ids = self._tokenizer(text.replace(_IMAGE, _IMAGE * places, 1), return_tensors="pt")["input_ids"]
        kinds = (ids == self._model.config.image_token_id).int()
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds, **seen}

    def answer(self, inputs: dict[str, torch.Tensor], max_tokens: int, streamer: FirstToken) -> tuple[str, int]:
        """The text of a greedy answer, and its tokens."""
        out = self._model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False, streamer=streamer)
        tokens = out[0, inputs["input_ids"].shape[1] :]
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip(), len(tokens)


def create_app(model: Model) -> Flask:
    """The script, with a lock around `generate`: two at once would mix up the state that the model keeps."""
    app = Flask("baseline")
    one_at_a_time = threading.Lock()

    @app.get("/health/ready")
    def ready() -> Response:
        return jsonify(success=True)

    @app.post("/v1/chat/vision")
    def chat_vision() -> Response:
        arrived_s = time.perf_counter()
        body = request.get_json()
        image = Image.open(io.BytesIO(base64.b64decode(body["image"]))).convert("RGB")
        streamer = FirstToken()
        with one_at_a_time:
            inputs = model.inputs(image, body["prompt"])
            text, tokens = model.answer(inputs, int(body.get("max_tokens", 512)), streamer)
        usage = {"prompt_tokens": inputs["input_ids"].shape[1], "completion_tokens": tokens}
        timings = {"first_token_s": streamer.at_s - arrived_s}
        return jsonify(result=text, success=True, usage=usage, timings=timings)

    return app


def main(
    checkpoint: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The Hugging Face checkpoint folder.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback.")] = 5001,
    threads: Annotated[int, typer.Option(min=1, help="torch's processor threads.")] = 1,
) -> None:
    """Serve a checkpoint as a plain Flask script does: transformers in fp32, greedy, one request at a time."""
    torch.set_num_threads(threads)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    create_app(Model(checkpoint)).run("127.0.0.1", port, threaded=True)


if __name__ == "__main__":
    typer.run(main)
