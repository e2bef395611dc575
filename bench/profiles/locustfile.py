"""A load of people for locust: they look at an image, ask about it, and ask again. `make load` runs it.

Host, users and duration come from locust's own options. An answer counts as failed unless it is whole: a 200 without
success, a stream without its last event, an error event. A rejection (429, 503) has a name of its own, for it is meant.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import time
from typing import Any

from locust import HttpUser, between, task
from PIL import Image, ImageDraw

SIZES = ((224, 224), (640, 480), (1280, 720))
QUESTIONS = ("How many shapes are there?", "What is in the middle?", "图中有几个图形？", "What colour is the star?")
MOST_TOKENS = 64
KEY = os.environ.get("API_KEY")
REFUSED = (429, 503)
ANSWER_S = 60.0


def random_image(chance: random.Random) -> str:
    """A JPEG with a few coloured shapes, in base64."""
    image = Image.new("RGB", chance.choice(SIZES), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(chance.randint(1, 6)):
        x, y = chance.randrange(image.width), chance.randrange(image.height)
        draw.ellipse((x, y, x + 60, y + 60), fill=chance.choice(("red", "green", "blue", "orange")))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()


class Person(HttpUser):
    """Asks something every few seconds, most often about the same image as before."""

    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        self.chance = random.Random()
        self.image = random_image(self.chance)
        self.headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}

    @task(1)
    def look_at_another(self) -> None:
        self.image = random_image(self.chance)

    @task(3)
    def ask(self) -> None:
        self._ask_for("success", "/v1/chat/vision", self._body())

    @task(1)
    def use_an_openai_client(self) -> None:
        image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{self.image}"}}
        content = [{"type": "text", "text": self.chance.choice(QUESTIONS)}, image]
        messages = [{"role": "user", "content": content}]
        body = {"model": "GLM-4.6V-Flash-WEB", "messages": messages, "max_tokens": MOST_TOKENS}
        self._ask_for("choices", "/v1/chat/completions", body)

    @task(3)
    def watch_the_answer(self) -> None:
        """A stream; the time of its first word is recorded as well."""
        began, words, last = time.perf_counter(), 0, {}
        body = {**self._body(), "stream": True}
        with self._post("/v1/chat/vision", body, stream=True, name="stream") as reply:
            if reply.status_code != 200:
                _fail(reply)
                return
            for line in reply.iter_lines():
                if line.startswith(b"data: "):
                    last = json.loads(line[6:])
                    words += "delta" in last
                    if words == 1 and "delta" in last:
                        taken_ms = 1000 * (time.perf_counter() - began)
                        first_word = {"name": "first word", "response_time": taken_ms, "response_length": 0}
                        self.environment.events.request.fire(request_type="SSE", exception=None, **first_word)
            if "result" not in last:
                reply.failure("error event" if "error" in last else "cut short")

    def _ask_for(self, field: str, path: str, body: dict[str, Any]) -> None:
        with self._post(path, body) as reply:
            if reply.status_code != 200 or not reply.json().get(field):
                _fail(reply)

    def _post(self, path: str, body: dict[str, Any], **options: Any) -> Any:
        return self.client.post(path, json=body, headers=self.headers, catch_response=True, timeout=ANSWER_S, **options)

    def _body(self) -> dict[str, Any]:
        return {"image": self.image, "prompt": self.chance.choice(QUESTIONS), "max_tokens": MOST_TOKENS}


def _fail(reply: Any) -> None:
    reply.failure("refused" if reply.status_code in REFUSED else f"status {reply.status_code}")
