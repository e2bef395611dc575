"""Parses an answer's tokens into thoughts, content and tool calls, up to a stop string."""

from __future__ import annotations

from dataclasses import dataclass

from glmserve.limits import MAX_CALLS
from glmserve.model.boxes import BOX_CLOSE, BOX_OPEN, Box, BoxReader
from glmserve.model.chat_template import THINK_CLOSE, THINK_OPEN
from glmserve.model.tokenizer import Detokenizer, Tokenizer
from glmserve.model.tool_parser import CALL_CLOSE, CALL_OPEN, CallMarkup, RawCall


@dataclass(frozen=True)
class Delta:
    """Final text, which neither a stop string nor a later byte can change."""

    content: str = ""
    thinking: str = ""
    calls: tuple[RawCall, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class TextRules:
    """How tokens become text, where a request asks for something of its own.

    `includes_stop` keeps the stop string that was met, `shows_control_tokens` spells out those that do not steer,
    `continues` leaves the white space at the beginning, as the answer goes on with a text, and before `min_tokens`
    tokens no stop string counts.
    """

    includes_stop: bool = False
    shows_control_tokens: bool = False
    continues: bool = False
    min_tokens: int = 0


class AnswerReader:
    """Reads one answer token by token; control tokens steer it and never reach the text.

    `content` and `thinking` hold all text so far, neither beginning nor ending in white space; `stopped` turns true
    when a stop string was met in the content, which then ends just before it, or after the last of `max_calls` tool
    calls. Calls are read where asked for; one whose function has no possible name is text.
    A raw answer, which continues a text, keeps its white space and what stands between marks of thinking.
    `tokens` counts what was read until then, `thinking_tokens` those between marks of thinking; what comes in one
    message with the end of a stop string is chance.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: tuple[str, ...] = (),
        reads_calls: bool = False,
        is_raw: bool = False,
        max_calls: int = MAX_CALLS,
        rules: TextRules = TextRules(),
    ) -> None:
        self._control = tokenizer.control_texts
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = stop
        self._reads_calls = reads_calls
        self._is_raw = is_raw
        self._max_calls = max_calls
        self._rules = rules
        self._held = {"content": "", "thinking": ""}
        self._call: CallMarkup | None = None  # the unfinished one
        self._is_thinking = False
        self.content = ""
        self.thinking = ""
        self.calls: list[RawCall] = []
        self._boxes = BoxReader()
        self.stopped = False
        self.stop_string: str | None = None  # the one that was met
        self.tokens = 0
        self.thinking_tokens = 0

    def is_said(self, token: int) -> bool:
        """Whether this token, if it comes next, is part of the content."""
        is_text = token not in self._control or self._rules.shows_control_tokens
        return is_text and not self._is_thinking and self._call is None and not self.stopped

    def push(self, tokens: list[int]) -> Delta:
        """The text that these tokens make final."""
        before = self._lengths()
        for token in tokens:
            if self.stopped:
                break
            self.tokens += 1
            self.thinking_tokens += self._is_thinking
            control = self._control.get(token)
            if control is None:
                self._add(self._detokenizer.push(token))
                continue
            self._add(self._detokenizer.finish())
            self._steer(control)
        return self._since(*before)

    def finish(self) -> Delta:
        """The text held back for a stop string that did not come. Of a character cut off in its middle nothing is
        told."""
        before = self._lengths()
        self._call = None  # a call that was cut off does not count
        self.content += self._trimmed(self._held["content"])
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
        if self._call is None and not self._is_thinking and control in (BOX_OPEN, BOX_CLOSE):
            self._boxes.steer(control)
        if self._rules.shows_control_tokens and not self._is_mark(control):
            self._add(control)
        elif self._is_raw:
            return
        elif control in (THINK_OPEN, THINK_CLOSE):
            self._is_thinking = control == THINK_OPEN
        elif not self._reads_calls:
            return
        elif control == CALL_OPEN:
            self._call = CallMarkup()
        elif control == CALL_CLOSE and self._call is not None:
            self._end_call(self._call)
        elif self._call is not None:
            self._call.add_control(control)

    def _end_call(self, markup: CallMarkup) -> None:
        self._call = None
        call = markup.call()
        if call is None:
            self._add(markup.as_text())
            return
        self.calls.append(call)
        self.stopped = len(self.calls) == self._max_calls

    def _is_mark(self, control: str) -> bool:
        """Whether this control token divides the answer into its parts."""
        if self._is_raw:
            return False
        return (
            control in (THINK_OPEN, THINK_CLOSE)
            or self._call is not None
            or (self._reads_calls and control == CALL_OPEN)
        )

    def _add(self, text: str) -> None:
        if not text or self.stopped:
            return
        if self._call is not None:
            self._call.add_text(text)
        elif self._is_thinking:
            self.thinking += self._settled("thinking", text, ())
        else:
            self._boxes.push(text)
            stops = self._stop if self.tokens > self._rules.min_tokens else ()
            self.content += self._settled("content", text, stops)

    def _settled(self, kind: str, text: str, stops: tuple[str, ...]) -> str:
        """The final part of the held and the new text, up to a stop string; the rest stays held."""
        text = self._held[kind] + text
        keeps_space = self._is_raw or (kind == "content" and self._rules.continues)
        if not keeps_space and not (self.thinking if kind == "thinking" else self.content):
            text = text.lstrip()
        found = [(at, stop) for at, stop in ((text.find(stop), stop) for stop in stops) if at >= 0]
        if found:
            at, self.stop_string = min(found)
            self._held[kind], self.stopped = "", True
            return text[: at + len(self.stop_string)] if self._rules.includes_stop else self._trimmed(text[:at])
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
