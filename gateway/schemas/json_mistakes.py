"""What is wrong with text that is no JSON, and where, in our own words."""

from __future__ import annotations

import codecs
import re

_PLACE = re.compile(r"^(.*) at line (\d+) column (\d+)$", re.DOTALL)
_MOST_LINES = 10_000
_NEAR_BYTES = 14
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_VALUE = "a value is expected: text in double quotes, a number, true, false, null, a list or an object"
_SAID = {
    "trailing comma": "a comma stands before the closing bracket",
    "key must be a string": "a field's name in double quotes is expected",
    "expected `:`": "a colon is expected after a field's name",
    "expected `,` or `}`": "a comma or } is expected",
    "expected `,` or `]`": "a comma or ] is expected",
    "expected value": _VALUE,
    "expected ident": _VALUE,
    "invalid number": "this is no number of JSON",
    "number out of range": "the number has too many digits",
    "invalid escape": "this is no escape of JSON; a backslash is written \\\\",
    "invalid unicode code point": "a byte is not UTF-8; send JSON as UTF-8",
    "trailing characters": "more follows after the end",
    "recursion limit exceeded": "lists and objects stand too deep inside one another",
}
_ALONE = "half of a surrogate pair (\\ud800 to \\udfff) stands alone"
_ESCAPE = "\\u needs four hexadecimal digits"
_CONTROL = "a line break or another control character stands in a text; write it as an escape like \\n"
_ENDS = "it ends too early"
_NAN = re.compile(rb"-?(NaN|Infinity)\b")
_NO_NAN = "NaN and Infinity are no numbers of JSON"
_WORDS = re.compile(rb"(None|True|False|undefined)\b")
_NO_WORD = "Python and JavaScript write this value so; JSON has null, true and false"
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "is UTF-32"),
    (codecs.BOM_UTF32_BE, "is UTF-32"),
    (codecs.BOM_UTF16_LE, "is UTF-16"),
    (codecs.BOM_UTF16_BE, "is UTF-16"),
    (codecs.BOM_UTF8, "begins with a byte order mark (BOM)"),
    (b"\x1f\x8b", "is compressed, and no Content-Encoding says so"),
)


def json_mistake(text: bytes, error: ValueError) -> str:
    """Ends a sentence that begins "The request body …"; `error` is what pydantic's parser said of it."""
    for mark, words in _ENCODINGS:
        if text.startswith(mark):
            return f"{words}; send plain JSON as UTF-8."
    if b"\0" in text[:4]:
        return f"is {'UTF-32' if text[:4].count(0) > 2 else 'UTF-16'}; send plain JSON as UTF-8."
    found = _PLACE.match(str(error))
    if found is None:
        return "is not valid JSON."
    line, column = int(found[2]), int(found[3])
    begin = _start_of_line(text, line)
    if begin is None:
        return f"is not valid JSON: at line {line}, {_words(found[1], b'', b'')}."
    at = begin + max(column - 1, 0)
    words = _words(found[1], text[max(0, at - _NEAR_BYTES) : at + 1], text[at : at + _NEAR_BYTES])
    characters = len(text[begin : begin + column].decode("utf-8", "replace"))
    return f"is not valid JSON: at line {line}, column {characters}, {words}."


def _words(said: str, before: bytes, after: bytes) -> str:
    if said.startswith("EOF"):
        return _ENDS
    if said.startswith("control character"):
        return _CONTROL
    if "hex escape" in said:
        return _ALONE if _SURROGATE.search(before) or said.startswith("lone") else _ESCAPE
    if _NAN.match(after) or _NAN.match(before[-2:] + after[1:]):
        return _NO_NAN
    return _NO_WORD if _WORDS.match(after) else _SAID.get(said, "it breaks JSON's rules")


def _start_of_line(text: bytes, line: int) -> int | None:
    """None where that would take long to find."""
    if line > _MOST_LINES:
        return None
    at = 0
    for _ in range(line - 1):
        at = text.find(b"\n", at) + 1
    return at
