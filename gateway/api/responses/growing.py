"""One item of a response while it grows: the events of its beginning, its growth and its end."""

from __future__ import annotations

from typing import Any, Literal

Kind = Literal["message", "reasoning", "summary", "call"]
_EVENTS: dict[Kind, str] = {
    "message": "response.output_text",
    "reasoning": "response.reasoning_text",
    "summary": "response.reasoning_summary_text",
    "call": "response.function_call_arguments",
}
_PART_EVENTS: dict[Kind, str] = {
    "message": "response.content_part",
    "reasoning": "response.content_part",
    "summary": "response.reasoning_summary_part",
}


class GrowingItem:
    """A message, thoughts as they are or as a summary, or a call; `index` is its place among the response's items."""

    def __init__(self, kind: Kind, name: str, index: int, function: str = "") -> None:
        self.kind: Kind = kind
        self._name = name
        self._function = function
        self._place = {"item_id": name, "output_index": index}
        self._part_index = {} if kind == "call" else {"summary_index" if kind == "summary" else "content_index": 0}
        self._text = ""
        self._logprobs: list[dict[str, Any]] = []

    def begin(self) -> list[dict[str, Any]]:
        """The item without its text."""
        events = [self._of_item("added", self._item("in_progress", is_begun=False))]
        return events + ([] if self.kind == "call" else [self._of_part("added")])

    def grow(self, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        """Some more of its text."""
        self._text += text
        self._logprobs += logprobs
        told = {"logprobs": logprobs} if self.kind == "message" else {}
        return {"type": f"{_EVENTS[self.kind]}.delta", **self._place, **self._part_index, "delta": text, **told}

    def end(self, status: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The whole item, and the events of its end."""
        item = self._item(status)
        done = {"type": f"{_EVENTS[self.kind]}.done", **self._place, **self._part_index, **self._whole_text()}
        parts = [] if self.kind == "call" else [self._of_part("done")]
        return item, [done, *parts, self._of_item("done", item)]

    def _whole_text(self) -> dict[str, Any]:
        if self.kind == "call":
            return {"name": self._function, "arguments": self._text}
        return {"text": self._text, **({"logprobs": self._logprobs} if self.kind == "message" else {})}

    def _of_item(self, what: str, item: dict[str, Any]) -> dict[str, Any]:
        return {"type": f"response.output_item.{what}", "output_index": self._place["output_index"], "item": item}

    def _of_part(self, what: str) -> dict[str, Any]:
        return {"type": f"{_PART_EVENTS[self.kind]}.{what}", **self._place, **self._part_index, "part": self._part()}

    def _part(self) -> dict[str, Any]:
        if self.kind == "message":
            return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": list(self._logprobs)}
        return {"type": "summary_text" if self.kind == "summary" else "reasoning_text", "text": self._text}

    def _item(self, status: str, is_begun: bool = True) -> dict[str, Any]:
        """The item as far as it has grown."""
        parts = [self._part()] if is_begun else []
        if self.kind == "call":
            called = {"call_id": f"call{self._name.removeprefix('fc')}", "name": self._function}
            return {"type": "function_call", "id": self._name, "status": status, **called, "arguments": self._text}
        if self.kind == "message":
            return {"type": "message", "id": self._name, "status": status, "role": "assistant", "content": parts}
        told = {"summary": parts, "content": []} if self.kind == "summary" else {"summary": [], "content": parts}
        return {"type": "reasoning", "id": self._name, "status": status, **told, "encrypted_content": None}
