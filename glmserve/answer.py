"""Splits an answer's tokens into what was thought and what is said, and ends it at a stop string."""

from __future__ import annotations

from dataclasses import dataclass

from glmserve.tokenizer import Detokenizer, Tokenizer

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Delta:
    """Text that has become certain: it will not be taken back by a stop string or a later byte."""

    content: str = ""
    thinking: str = ""


class AnswerReader:
    """Reads one answer token by token; control tokens steer it and never reach the text.

    `content` and `thinking` hold all text so far; `stopped` turns true when a stop string was met in the content, which
    then ends just before it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = ()) -> None:
        self._control = {token_id: text for text, token_id in tokenizer.control_tokens.items()}
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = stop
        self._held = ""
        self._is_thinking = False
        self.content = ""
        self.thinking = ""
        self.stopped = False

    def push(self, tokens: list[int]) -> Delta:
        """The text these tokens (in order) make certain."""
        content, thinking = len(self.content), len(self.thinking)
        for token in tokens:
            if self.stopped:
                break
            control = self._control.get(token)
            if control is None:
                self._add(self._detokenizer.push(token))
                continue
            self._add(self._detokenizer.finish())
            if control in (THINK_OPEN, THINK_CLOSE):
                self._is_thinking = control == THINK_OPEN
        return Delta(self.content[content:], self.thinking[thinking:])

    def finish(self) -> Delta:
        """What was held back for a stop string or a character that never came."""
        content, thinking = len(self.content), len(self.thinking)
        self._add(self._detokenizer.finish())
        if not self.stopped:
            self.content += self._held
            self._held = ""
        return Delta(self.content[content:], self.thinking[thinking:])

    def _add(self, text: str) -> None:
        if not text:
            return
        if self._is_thinking:
            self.thinking += text if self.thinking else text.lstrip()
            return
        text = self._held + text
        if not self.content:
            text = text.lstrip()
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.content += text[: min(found)]
            self._held, self.stopped = "", True
            return
        keep = _open_stop(text, self._stop)
        self.content += text[: len(text) - keep]
        self._held = text[len(text) - keep :]


def _open_stop(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest
