"""Parses an answer's tokens into thoughts, content and tool calls, up to a stop string."""

from __future__ import annotations

from dataclasses import dataclass

from glmserve.model.boxes import BOX_CLOSE, BOX_OPEN, Box, BoxReader
from glmserve.model.tokenizer import Detokenizer, Tokenizer
from glmserve.model.tool_parser import CALL_CLOSE, CALL_OPEN, RawCall, read_call

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Delta:
    """Final text, which neither a stop string nor a later byte can change."""

    content: str = ""
    thinking: str = ""
    calls: tuple[RawCall, ...] = ()
    boxes: tuple[Box, ...] = ()


class AnswerReader:
    """Reads one answer token by token; control tokens steer it and never reach the text.

    `content` and `thinking` hold all text so far, neither beginning nor ending in white space; `stopped` turns true
    when a stop string was met in the content, which then ends just before it. Tool calls are read where asked for.
    `tokens` counts what was read until then; what comes in one message with the end of a stop string is chance.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = (), reads_calls: bool = False) -> None:
        self._control = tokenizer.control_texts
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = stop
        self._reads_calls = reads_calls
        self._held = {"content": "", "thinking": ""}
        self._call: str | None = None  # the markup of the unfinished call
        self._is_thinking = False
        self.content = ""
        self.thinking = ""
        self.calls: list[RawCall] = []
        self._boxes = BoxReader()
        self.stopped = False
        self.tokens = 0

    def is_said(self, token: int) -> bool:
        """Whether this token, if it comes next, is part of the content."""
        return token not in self._control and not self._is_thinking and self._call is None and not self.stopped

    def push(self, tokens: list[int]) -> Delta:
        """The text that these tokens make final."""
        before = self._lengths()
        for token in tokens:
            if self.stopped:
                break
            self.tokens += 1
            control = self._control.get(token)
            if control is None:
                self._add(self._detokenizer.push(token))
                continue
            self._add(self._detokenizer.finish())
            self._steer(control)
        return self._since(*before)

    def finish(self) -> Delta:
        """The text held back for a stop string or a character that did not come."""
        before = self._lengths()
        self._add(self._detokenizer.finish())
        self._call = None  # a call that was cut off does not count
        if not self.stopped:
            self.content += self._held["content"].rstrip()
            self._held["content"] = ""
        return self._since(*before)

    @property
    def boxes(self) -> list[Box]:
        """The places that the content names, in order."""
        return self._boxes.boxes

    def _lengths(self) -> tuple[int, int, int, int]:
        return len(self.content), len(self.thinking), len(self.calls), len(self.boxes)

    def _since(self, content: int, thinking: int, calls: int, boxes: int) -> Delta:
        return Delta(
            self.content[content:], self.thinking[thinking:], tuple(self.calls[calls:]), tuple(self.boxes[boxes:])
        )

    def _steer(self, control: str) -> None:
        if control in (THINK_OPEN, THINK_CLOSE):
            self._is_thinking = control == THINK_OPEN
        elif self._call is None and not self._is_thinking and control in (BOX_OPEN, BOX_CLOSE):
            self._boxes.steer(control)
        elif not self._reads_calls:
            return
        elif control == CALL_OPEN:
            self._call = ""
        elif control == CALL_CLOSE and self._call is not None:
            self.calls.append(read_call(self._call))
            self._call = None
        elif self._call is not None:
            self._call += control

    def _add(self, text: str) -> None:
        if not text:
            return
        if self._call is not None:
            self._call += text
        elif self._is_thinking:
            self.thinking += self._settled("thinking", text, ())
        else:
            self._boxes.push(text)
            self.content += self._settled("content", text, self._stop)

    def _settled(self, kind: str, text: str, stops: tuple[str, ...]) -> str:
        """The final part of the held and the new text, up to a stop string; the rest stays held."""
        text = self._held[kind] + text
        if not (self.thinking if kind == "thinking" else self.content):
            text = text.lstrip()
        found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
        if found:
            self._held[kind], self.stopped = "", True
            return text[: min(found)].rstrip()
        settled = text[: len(text) - _open_stop(text, stops)].rstrip()
        self._held[kind] = text[len(settled) :]
        return settled


def _open_stop(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest
