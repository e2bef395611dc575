"""An answer's text never splits a character, leaks a control token, or runs past a stop string."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_checkpoint import needs_real, real_tokenizer
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE

from glmserve.model.output_parser import AnswerReader
from glmserve.model.tokenizer import _BYTE_OF, Detokenizer, Tokenizer

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
TOKENIZER = Tokenizer.read(DEMO)
MIXED = "naïve 图中有🦊两个 👩‍👩‍👧 ok\n"


def _read(text: str, stop: tuple[str, ...] = ()) -> tuple[AnswerReader, list[str]]:
    reader = AnswerReader(TOKENIZER, stop)
    deltas = [reader.push([token]).content for token in TOKENIZER.encode(text)]
    return reader, [*deltas, reader.finish().content]


def test_text_comes_whole_character_by_whole_character() -> None:
    reader, deltas = _read(MIXED)
    assert reader.content == "".join(deltas) == MIXED.strip()
    assert all("\ufffd" not in delta for delta in deltas)


@needs_real
def test_the_real_tokenizer_streams_without_broken_characters() -> None:
    tokenizer = real_tokenizer()
    stream = Detokenizer(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.encode(MIXED)]
    assert "".join(pieces) + stream.finish() == MIXED and all("\ufffd" not in piece for piece in pieces)


@needs_real
@pytest.mark.parametrize("word", ["캠퍼스", "뒤편", "뒤흔들다", "쇠퇴"])
def test_korean_of_the_real_tokenizer_streams_whole(word: str) -> None:
    tokenizer = real_tokenizer()
    stream = Detokenizer(tokenizer)
    assert "".join(stream.push(token) for token in tokenizer.encode(word)) + stream.finish() == word


def test_tokens_that_end_one_character_and_begin_the_next() -> None:
    """As GLM's vocabulary has some: no token of this row but the last leaves every character whole."""
    spelling = {byte: character for character, byte in _BYTE_OF.items()}
    parts = [b"\xec", b"\xba", b"\xa0\xed", b"\x8d", b"\xbc\xec", b"\x8a", b"\xa4"]
    vocabulary = {"".join(spelling[byte] for byte in part): token for token, part in enumerate(parts)}
    source = LibraryTokenizer(BPE(vocabulary, []))
    source.decoder = ByteLevel()
    stream = Detokenizer(Tokenizer(source.to_str()))
    pieces = [stream.push(token) for token in range(len(parts))]
    assert pieces == ["", "", "캠", "", "퍼", "", "스"] and stream.finish() == ""


@given(st.text(max_size=40))
def test_any_text_survives_the_stream(text: str) -> None:
    stream = Detokenizer(TOKENIZER)
    ids = TOKENIZER.encode_plain(text)
    assert "".join(stream.push(token) for token in ids) + stream.finish() == text


@given(st.text(max_size=12), st.sampled_from("🦊é漢"), st.booleans())
def test_of_a_character_that_is_cut_off_nothing_is_told(before: str, last: str, is_raw: bool) -> None:
    whole, cut = (AnswerReader(TOKENIZER, is_raw=is_raw) for _ in range(2))
    begun, character = TOKENIZER.encode_plain(before), TOKENIZER.encode_plain(last)
    assert len(character) > 1
    whole.push(begun)
    deltas = [cut.push([*begun, *character[:-1]]).content]
    deltas.append(cut.finish().content)
    whole.finish()
    assert cut.content == "".join(deltas) == whole.content


def test_thinking_and_boxes_never_reach_the_answer() -> None:
    reader, _ = _read("<think>I see\none</think>\nThe number is <|begin_of_box|>42<|end_of_box|>.")
    assert reader.content == "The number is 42."
    assert reader.thinking == "I see\none"


def test_an_unfinished_thought_is_not_an_answer() -> None:
    reader, _ = _read("<think>hm, let me")
    assert reader.content == "" and reader.thinking == "hm, let me"


@pytest.mark.parametrize(
    ("stop", "wanted"),
    [(("STOP",), "one"), (("xyz",), "one STOP two"), (("two", "ne S"), "o"), (("TOP ", "STOP two"), "one S")],
)
def test_a_stop_string_ends_the_answer_before_itself(stop: tuple[str, ...], wanted: str) -> None:
    reader, deltas = _read("one STOP two", stop)
    assert reader.content == "".join(deltas) == wanted
    assert reader.stopped == (wanted != "one STOP two")


@given(text=st.text("ab", max_size=30), stop=st.text("ab", min_size=1, max_size=4))
def test_what_was_sent_is_never_taken_back(text: str, stop: str) -> None:
    reader, deltas = _read(text, (stop,))
    assert "".join(deltas) == reader.content == text.split(stop)[0]


def test_a_stop_string_in_the_thinking_does_not_end_the_answer() -> None:
    reader, _ = _read("<think>STOP</think>go", ("STOP",))
    assert reader.content == "go" and not reader.stopped


def test_tokens_behind_a_stop_string_are_not_counted_however_they_came() -> None:
    tokens = TOKENIZER.encode("one STOP two three four")
    one_by_one, together = (AnswerReader(TOKENIZER, ("STOP",)) for _ in range(2))
    for token in tokens:
        one_by_one.push([token])
    together.push(tokens)
    assert together.content == one_by_one.content == "one"
    assert together.tokens == one_by_one.tokens < len(tokens)


@pytest.mark.parametrize("stop", [": ", "b: "])
def test_nothing_is_added_once_a_stop_string_was_met(stop: str) -> None:
    """The token that completes it may begin a character that never comes."""
    spelling = {byte: character for character, byte in _BYTE_OF.items()}
    parts = [b"a", b"b:", b" \xf0\x9f", b"\xa7\xbf"]
    vocabulary = {"".join(spelling[byte] for byte in part): token for token, part in enumerate(parts)}
    source = LibraryTokenizer(BPE(vocabulary, []))
    source.decoder = ByteLevel()
    for tokens in ([0, 1, 2], [0, 1, 2, 3]):
        for together in (True, False):
            reader = AnswerReader(Tokenizer(source.to_str()), (stop,))
            deltas = [reader.push(part).content for part in ([tokens] if together else [[token] for token in tokens])]
            deltas.append(reader.finish().content)
            assert "".join(deltas) == reader.content == "ab: ".split(stop)[0]
