"""Text to token ids and back: with control tokens for our own template, without them for anything a user typed."""

from __future__ import annotations

import codecs
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as _Tokenizer

from glmserve.errors import BadArtifact

_CHARS_A_TOKEN = 4
_PIECE_CHARS = 4096  # of rare characters, three times as many tokens
_CUT_TOKENS = 16  # more than a cut through a word adds


class Tokenizer:
    """A checkpoint's tokenizer; safe to share between threads."""

    def __init__(self, source: str) -> None:
        """`source` is the text of a `tokenizer.json`."""
        try:
            self._full = _Tokenizer.from_str(source)
            self.control_texts = {i: token.content for i, token in self._full.get_added_tokens_decoder().items()}
            self.control_tokens = {text: token_id for token_id, text in self.control_texts.items()}
        except Exception as error:  # tokenizers raises bare Exception
            raise BadArtifact("tokenizer.json is not a tokenizer that the tokenizers library reads.") from error

    @staticmethod
    def read(folder: Path) -> Tokenizer:
        """The tokenizer of a checkpoint or build folder."""
        try:
            return Tokenizer((folder / "tokenizer.json").read_text("utf-8"))
        except (OSError, UnicodeDecodeError):
            raise BadArtifact("The checkpoint has no readable tokenizer.json.") from None

    @cached_property  # a table of the whole vocabulary is made for it
    def largest_id(self) -> int:
        """The largest id of any token; -1 where there is none."""
        return max(self._full.get_vocab(with_added_tokens=True).values(), default=-1)

    def encode(self, text: str) -> list[int]:
        """Ids of trusted text: control tokens written out in it become control tokens."""
        return self._full.encode_batch_fast([text], add_special_tokens=False)[0].ids  # lets go of Python's lock

    def is_far_longer(self, text: str, tokens: int) -> bool:
        """Whether a text has more tokens than these, found out with little more work than these take.

        False for one that has only a few more, and for one of up to four times as many characters.
        """
        if len(text) <= _CHARS_A_TOKEN * tokens:
            return False
        counted = 0
        for at in range(0, len(text), _PIECE_CHARS):
            counted += len(self.encode(text[at : at + _PIECE_CHARS])) - _CUT_TOKENS
            if counted > tokens:
                return True
        return False

    def encode_plain(self, text: str) -> list[int]:
        """Ids of untrusted text: a control token written out in it stays a row of ordinary characters.

        Takes the same steps as `encode`, but for the first, which looks for control tokens.
        """
        normalizer, splitter = self._full.normalizer, self._full.pre_tokenizer
        text = text if normalizer is None else normalizer.normalize_str(text)
        pieces = [(text, None)] if splitter is None else splitter.pre_tokenize_str(text)
        return [token.id for piece, _ in pieces for token in self._full.model.tokenize(piece)]

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`, control tokens included; broken UTF-8 becomes U+FFFD."""
        return self._full.decode_batch([ids], skip_special_tokens=False)[0]  # lets go of Python's lock

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, which may be part of a character; empty for an unknown id."""
        if token_id in self.control_texts:
            return self.control_texts[token_id].encode()
        spelling = self._full.id_to_token(token_id) or ""
        return bytes(_BYTE_OF[character] for character in spelling if character in _BYTE_OF)


def _bytes_by_spelling() -> dict[str, int]:
    """How a byte-level vocabulary spells each byte: printable ones as themselves, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _bytes_by_spelling()


class Detokenizer:
    """Turns one answer's tokens into text as they come, holding back a character until all its bytes are there.

    Of bytes rather than of tokens: some tokens end one character and begin the next, so that a word may go by without
    any token at whose end every character is whole.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that became complete with this token, often empty inside a multi-byte character."""
        return self._characters.decode(self._tokenizer.token_bytes(token))

    def finish(self) -> str:
        """The held-back bytes as U+FFFD, when no more tokens come."""
        return self._characters.decode(b"", final=True)
