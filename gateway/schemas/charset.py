"""Text of a form in the encoding that it names, never guessed, and never with characters lost."""

from __future__ import annotations

import codecs

from glmserve.errors import InvalidInput

_WIDER = {
    "ascii": "utf-8-sig",
    "utf-8": "utf-8-sig",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-1": "cp1252",
}
"""What the web means by these names."""
_KNOWN = {
    *_WIDER,
    *("gb18030", "big5", "big5hkscs", "cp950", "cp932", "euc_jp", "iso2022_jp", "cp949", "koi8-r", "koi8-u"),
    *("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"),
    *(f"cp125{i}" for i in range(9)),
    *(f"iso8859-{i}" for i in range(2, 17)),
}
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MOST_NAME_CHARS = 40


def text_of(data: bytes, charset: str, field: str) -> str:
    """The text of a field; raises InvalidInput for bytes that are none in this encoding, or in UTF-8 if none is named.

    A byte order mark is no part of the text, and tells UTF-16 from UTF-8 where no encoding is named.
    """
    if not charset:
        charset = "utf-16" if data.startswith(_UTF16) else "utf-8"
    try:
        known = codecs.lookup(charset).name if charset.isascii() and len(charset) <= _MOST_NAME_CHARS else ""
    except (LookupError, ValueError):
        known = ""
    if known not in _KNOWN:
        raise InvalidInput(f"The charset of the field {field} is not known: send its text as UTF-8.", field)
    try:
        return data.decode(_WIDER.get(known, known))
    except ValueError:
        raise InvalidInput(
            f"The field {field} is no text in {charset.upper()}: send UTF-8, or name the encoding of the part, "
            'as in curl -F "prompt=<question.txt;type=text/plain; charset=gbk".',
            field,
        ) from None
