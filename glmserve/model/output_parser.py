"""Parses an answer's tokens into thoughts, content and tool calls, up to a stop string."""

from __future__ import annotations

from dataclasses import dataclass

from glmserve.model.tokenizer import Detokenizer, Tokenizer
from glmserve.model.tool_parser import CALL_CLOSE, CALL_OPEN, RawCall, read_call

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Delta:
    """Final text, which neither a stop string nor a later byte can change."""

    content: str = ""
    thinking: str = ""
    calls: tuple[RawCall, ...] = ()


class AnswerReader:
    """Reads one answer token by token; control tokens steer it and never reach the text.

    `content` and `thinking` hold all text so far, neither beginning nor ending in white space; `stopped` turns true
    when a stop string was met in the content, which then ends just before it. Tool calls are read where asked for.
    A raw answer, which continues a text, keeps its white space and what stands between marks of thinking.
    `tokens` counts what was read until then; what comes in one message with the end of a stop string is chance.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: tuple[str, ...] = (), reads_calls: bool = False, is_raw: bool = False
    ) -> None:
        self._control = tokenizer.control_texts
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = stop
        self._reads_calls = reads_calls
        self._is_raw = is_raw
        self._held = {"content": "", "thinking": ""}
        self._call: str | None = None  # the markup of the unfinished call
        self._is_thinking = False
        self.content = ""
        self.thinking = ""
        self.calls: list[RawCall] = []
        self.stopped = False
        self.stop_string: str | None = None  # the one that was met
        self.tokens = 0

    def is_said(self, token: int) -> bool:
        """Whether this token, if it comes next, is part of the content."""
        return token not in self._control and not self._is_thinking and self._call is None and not self.stopped

    def push(self, tokens: list[int]) -> Delta:
        """The text that these tokens make final."""
        before = len(self.content), len(self.thinking), len(self.calls)
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
        before = len(self.content), len(self.thinking), len(self.calls)
        self._add(self._detokenizer.finish())
        self._call = None  # a call that was cut off does not count
        if not self.stopped:
            self.content += self._trimmed(self._held["content"])
            self._held["content"] = ""
        return self._since(*before)

    def _since(self, content: int, thinking: int, calls: int) -> Delta:
        return Delta(self.content[content:], self.thinking[thinking:], tuple(self.calls[calls:]))

    def _steer(self, control: str) -> None:
        if self._is_raw:
            return
        if control in (THINK_OPEN, THINK_CLOSE):
            self._is_thinking = control == THINK_OPEN
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
            self.content += self._settled("content", text, self._stop)

    def _settled(self, kind: str, text: str, stops: tuple[str, ...]) -> str:
        """The final part of the held and the new text, up to a stop string; the rest stays held."""
        text = self._held[kind] + text
        if not self._is_raw and not (self.thinking if kind == "thinking" else self.content):
            text = text.lstrip()
        found = [(at, stop) for at, stop in ((text.find(stop), stop) for stop in stops) if at >= 0]
        if found:
            at, self.stop_string = min(found)
            self._held[kind], self.stopped = "", True
            return self._trimmed(text[:at])
        settled = self._trimmed(text[: len(text) - _open_stop(text, stops)])
        self._held[kind] = text[len(settled) :]
        return settled

    def _trimmed(self, text: str) -> str:
        return text if self._is_raw else text.rstrip()


def _open_stop(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest
