"""A service as a check sees it: one that runs, the same with keys, and one whose model says a given text."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
DESCRIBE = [{"role": "user", "content": "Describe the picture."}]
MODEL = "GLM-4.6V-Flash-WEB"
ASKED = [{"role": "user", "content": "Who are you?"}]
_CANARY = Path(__file__).resolve().parents[3] / "demo" / "checkpoint" / "golden" / "canary.png"
PICTURE = base64.b64encode(_CANARY.read_bytes()).decode()
PICTURE_URL = f"data:image/png;base64,{PICTURE}"
WITH_PICTURE = [
    {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": PICTURE_URL}},
            {"type": "text", "text": "What is in the picture?"},
        ],
    }
]
SHAPE = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["colour", "count"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "shape", "description": "Notes a shape.", "parameters": SHAPE}}
OTHER_TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "parameters": {"type": "object", "properties": {"term": {"enum": ["circle", "square"]}}},
    },
}
CALL = (
    "<tool_call>shape\n<arg_key>colour</arg_key>\n<arg_value>red</arg_value>\n"
    "<arg_key>count</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"
)


@dataclass(frozen=True)
class Reply:
    """What a service answered."""

    status: int
    text: str
    headers: dict[str, str]

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def choice(self) -> Any:
        """The first one of a finished answer."""
        assert self.status == 200, (self.status, self.text[:300])
        return self.body["choices"][0]

    @property
    def content(self) -> str:
        return str(self.choice["message"]["content"])

    @property
    def usage(self) -> Any:
        return self.body["usage"]

    @property
    def error(self) -> Any:
        assert self.status >= 400, self.text[:300]
        return self.body["error"]

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events, without the mark of its end."""
        assert self.status == 200, (self.status, self.text[:300])
        data = [line[6:] for line in self.text.splitlines() if line.startswith("data: ")]
        return [json.loads(each) for each in data if each != "[DONE]"]

    @property
    def choices(self) -> list[Any]:
        """Those of all chunks of a stream."""
        return [choice for event in self.events for choice in event["choices"]]

    @property
    def is_done(self) -> bool:
        """Whether the mark of its end is the last of a stream."""
        return self.text.endswith("data: [DONE]\n\n")

    def streamed(self, index: int = 0) -> str:
        """The content that the chunks of a stream make together."""
        deltas = [choice["delta"] for choice in self.choices if choice["index"] == index]
        return "".join(delta.get("content") or "" for delta in deltas)

    def of_type(self, kind: str) -> list[Any]:
        """The events of this type."""
        return [event for event in self.events if event["type"] == kind]


class Sender(Protocol):
    """Sends one request; `body` is JSON, or bytes as they are."""

    def __call__(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply: ...


@dataclass(frozen=True)
class Service:
    """What a check asks: the real service by `send`, or the same with API keys, or with a model that says a text."""

    send: Sender
    keyed: Callable[[], tuple[Service, str]]
    """The service behind a file of keys, and a key for it."""
    saying: Callable[..., Service]
    """A service whose model says a text: saying(text, finish="stop", error=None)."""

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        return self.send("POST", path, body, {"Content-Type": "application/json", **headers})

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, None, headers)

    def chat(self, messages: Any = None, **fields: Any) -> Reply:
        asked = {"messages": ASKED if messages is None else messages, "temperature": 0, "max_tokens": 8}
        return self.post(CHAT, {**asked, **fields})

    def stream(self, messages: Any = None, **fields: Any) -> Reply:
        return self.chat(messages, stream=True, **fields)

    def complete(self, prompt: Any = "The circle is", **fields: Any) -> Reply:
        return self.post(TEXT, {"prompt": prompt, "temperature": 0, "max_tokens": 5, **fields})

    def respond(self, asked: Any = "Who are you?", **fields: Any) -> Reply:
        return self.post(RESPONSES, {"input": asked, "temperature": 0, "max_output_tokens": 8, **fields})

    def message(self, messages: Any = None, **fields: Any) -> Reply:
        asked = {"messages": ASKED if messages is None else messages, "temperature": 0, "max_tokens": 8}
        return self.post(MESSAGES, {**asked, **fields})

    def tokens(self, **fields: Any) -> Any:
        """The answer of /v1/tokenize."""
        reply = self.post("/v1/tokenize", fields)
        assert reply.status == 200, reply.text
        return reply.body
