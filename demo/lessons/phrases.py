"""Many ways to say one thing: a pattern holds choices in brackets, and one phrasing in ten is never trained on."""

from __future__ import annotations

import itertools
import random
import re
import zlib
from collections.abc import Iterator

Patterns = tuple[str, ...]

CHOICE = re.compile(r"\[([^\]]*)\]")
ONE_IN = 10  # phrasings that are held out


def phrasing(rng: random.Random, patterns: Patterns, held_out: bool = False) -> str:
    """One phrasing of these patterns, its {0}, {1} still open.

    `held_out` asks for one that training never shows; where a small set holds none, any will do.
    """
    text = ""
    for _ in range(400):
        text = CHOICE.sub(lambda choice: rng.choice(choice.group(1).split("|")), rng.choice(patterns))
        if is_held_out(text) == held_out:
            break
    return text


def phrasings(patterns: Patterns) -> Iterator[str]:
    """Every phrasing of these patterns."""
    for pattern in patterns:
        parts = CHOICE.split(pattern)  # text, choices, text, choices, ..., text
        choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
        yield from ("".join(chosen) for chosen in itertools.product(*choices))


def is_held_out(text: str) -> bool:
    """Decided by the phrasing's own letters, so that each stays on its side."""
    return zlib.crc32(text.encode()) % ONE_IN == 0


def as_typed(rng: random.Random, language: str, text: str) -> str:
    """As people type: now and then with a courtesy, in lower case or without the last mark."""
    lot = rng.random()
    if lot < 0.08:
        text = rng.choice(BEFORE[language]) + text
    elif lot < 0.16:
        text = text + rng.choice(AFTER[language])
    elif lot < 0.26:
        text = text[:1].lower() + text[1:]
    if rng.random() < 0.12:
        text = text.rstrip("?.!？。！")
    return text


BEFORE = {
    "en": ("Hi! ", "Hello, ", "Look at the picture. ", "Question: ", "Tell me: ", "Please answer: ", "OK, ", "So, "),
    "zh": ("你好，", "请问", "请看图，", "问题：", "请回答：", "告诉我，", "那么，"),
}
AFTER = {
    "en": (" Please.", " Thanks!", " Answer briefly.", " Be brief.", " Thank you.", " Keep it short."),
    "zh": ("谢谢！", "请简短回答。", "谢谢。", "请回答。", "简单说说。"),
}
