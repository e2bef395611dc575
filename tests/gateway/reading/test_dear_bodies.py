"""What is dear to read is told from what is merely large, and read in a process that can be ended."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from costly_bodies import KINDS, VISION
from cpu_time import takes_less_than
from eventually import eventually

from gateway.reading.base64_file import bytes_of_base64
from gateway.reading.dear import SMALL_BYTES, SMALL_FORM_BYTES, is_dear, is_quick
from gateway.reading.dear_reader import DearReader
from gateway.reading.process import IDLE_S
from gateway.schemas.json_reader import parse_json
from gateway.schemas.multipart import FORM, URLENCODED, read_parts
from gateway.schemas.vision import parse_vision
from glmserve.errors import DeadlineExceeded, GlmServeError, InvalidInput, Overloaded
from glmserve.system.stopped import is_stopped

JSON = "application/json"
PLAIN = "base64 of no picture"
DEAR = [
    *(kind for kind in KINDS if kind.startswith(("JSON", "base64", "a name")) and kind != PLAIN),
    "a form's long text",
    "a form of escapes",
    "a form of blanks",
    "a form's JSON",
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", DEAR)
def test_what_takes_long_to_read_is_dear(kind: str) -> None:
    made = KINDS[kind]()
    assert is_dear(made.body, made.headers["Content-Type"].partition(";")[0])


@pytest.mark.parametrize("file_bytes", [300, 300_000, 11_000_000])
def test_a_photo_as_base64_is_not_dear(file_bytes: int) -> None:
    photo = base64.b64encode(os.urandom(file_bytes)).decode()
    asked = {"image": f"data:image/jpeg;base64,{photo}", "prompt": "What is the time? 现在几点？" * 200}
    assert not is_dear(json.dumps(asked).encode(), JSON)


def test_a_large_form_is_dear_and_a_small_one_is_not() -> None:
    assert is_dear(bytes(2 << 20), FORM) and is_dear(b"+" * (2 << 20), URLENCODED)
    assert not is_dear(bytes(1 << 20), FORM)


def test_a_small_body_is_quick_unless_it_holds_many_values() -> None:
    photo, names = os.urandom(45_000), ",".join(f'"name{i}":1' for i in range(4000))
    text = json.dumps({"image": base64.b64encode(photo).decode(), "prompt": "What is the time? 现在几点？" * 100})
    assert is_quick(text.encode(), JSON) and is_quick(photo, FORM) and is_quick(b'"a":1,' * 1000, JSON)
    assert not is_quick(f"{{{names}}}".encode(), JSON) and not is_quick(b"[" + b"1," * 9000, FORM)
    assert not is_quick(b"%41" * 15_000, URLENCODED) and not is_quick(b"A" * 100_000, JSON)


def test_a_photo_in_a_small_form_is_not_dear() -> None:
    assert not is_dear(os.urandom(SMALL_FORM_BYTES), FORM)


@pytest.mark.parametrize(
    "name",
    ["k" * 5000, '\\"' + "k" * 5000, "k" * 5000 + '\\"', "k" * 5000 + "\\\\", ("k" * 1000 + '\\"') * 5, "k-" * 2500],
    ids=["plain", "quote first", "quote last", "backslash last", "quotes in it", "dashes in it"],
)
@pytest.mark.parametrize("before_colon", ["", " ", "\n \t"])
def test_a_long_name_is_dear_however_it_is_written(name: str, before_colon: str) -> None:
    photo = "A" * (2 << 20)  # so that the name may lie in another piece
    for body in (f'{{"{name}"{before_colon}:1,"image":"{photo}"}}', f'{{"image":"{photo}","{name}"{before_colon}:1}}'):
        assert is_dear(body.encode(), JSON)
    assert not is_dear(f'{{"image"{before_colon}:"{photo}","prompt":"{name}"}}'.encode(), JSON)


def test_a_form_of_long_heads_is_refused_before_they_are_read() -> None:
    """Half a second for each megabyte; a head has two hundred bytes, and one may have eight thousand."""
    made = KINDS["a form's long heads"]()

    def is_refused() -> None:
        with pytest.raises(InvalidInput, match="multipart form"):
            read_parts(made.body, made.headers["Content-Type"], 56)

    assert takes_less_than(0.05, is_refused)
    one = made.body[:7100].partition(b"1\r\n")[0] + b"1\r\n--bound--\r\n"
    assert len(read_parts(one, made.headers["Content-Type"], 56)) == 1


@pytest.mark.parametrize("digits", [31, 4000, 100_000])
def test_a_long_number_is_dear_wherever_it_begins(digits: int) -> None:
    for shift in range(17):
        body = b'{"a":' + b"a" * shift + b"1" * digits + b",b" * SMALL_BYTES
        assert is_dear(body[: SMALL_BYTES + 20_000 + digits], JSON)


def test_no_body_that_is_not_dear_holds_pythons_lock_for_long() -> None:
    """By parsing alone: the largest bodies of items of one kind that are merely large, in processor time."""
    for item in (b"1" * 15, b"1e" + b"1" * 15, b"0." + b"1" * 15, b'"%b"' % (b"a" * 1000), b'"%b":1' % (b"a" * 4000)):
        is_name = item.endswith(b":1")
        most = 3600 if len(item) > 100 else SMALL_BYTES // 2 - 100
        body = (b"{%b}" if is_name else b'{"x":[%b]}') % b",".join([item] * most)
        assert not is_dear(body, JSON)
        assert takes_less_than(0.05, lambda body=body: parse_json(body))


def halves(body: bytes, times: int) -> bytes:
    return body[: len(body) // 2] * times


def refuses(body: bytes, field: str) -> bytes:
    raise InvalidInput(f"The field {field} is wrong.", field)


def breaks(body: bytes) -> bytes:
    raise RuntimeError(body)


def computes_for_ever(body: bytes) -> bytes:
    while True:
        body = body[::-1]


def sleeps(body: bytes) -> None:
    time.sleep(60)


def takes_memory(body: bytes) -> int:
    return len(bytes(1 << 30))


def takes_the_last_of_memory(body: bytes) -> None:
    kept: list[object] = []
    for count in (1 << 20, 1 << 12, 1 << 8):
        try:
            while True:
                kept.append(bytearray(count))
        except MemoryError:
            continue
    while True:
        kept = [kept]


def aborts(body: bytes) -> None:
    os.abort()  # as libraries do that get no memory


def dies(body: bytes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def pid(body: bytes) -> int:
    return os.getpid()


@pytest.fixture
def reader() -> Iterator[DearReader]:
    with closing(DearReader(20.0, cpu_s=0.3)) as made:
        yield made


@pytest.mark.process
def test_a_body_is_read_elsewhere_as_it_would_be_here(reader: DearReader) -> None:
    body = os.urandom(3_000_000)
    assert reader.read("key", halves, body, 3) == halves(body, 3)
    with pytest.raises(InvalidInput, match="The field image is wrong") as caught:
        reader.read("key", refuses, body, "image")
    assert caught.value.field == "image"
    assert reader.read("key", pid, b"") == reader.read("other", pid, b"") != os.getpid()


@pytest.mark.process
@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        (computes_for_ever, InvalidInput, "0.3 s of processor time"),
        (takes_memory, InvalidInput, "MiB of memory"),
        (aborts, InvalidInput, "MiB of memory"),
        (dies, Overloaded, "is busy"),
        (breaks, GlmServeError, "failed to answer"),
    ],
)
def test_one_that_takes_too_much_or_fails_is_refused_and_the_next_is_read(
    reader: DearReader, function: object, error: type[GlmServeError], said: str
) -> None:
    with pytest.raises(error, match=said):
        reader.read("key", function, b"body")  # type: ignore[arg-type]
    assert reader.read("key", halves, b"body", 1) == b"bo"


@pytest.mark.process
def test_one_that_leaves_no_memory_at_all_is_refused_and_its_process_goes_on() -> None:
    with closing(DearReader(30.0, cpu_s=20.0)) as reader:
        before = reader.read("key", pid, b"body")
        with pytest.raises(InvalidInput, match="MiB of memory"):
            reader.read("key", takes_the_last_of_memory, b"body")
        assert reader.read("key", pid, b"body") == before


@pytest.mark.process
def test_a_process_that_is_about_to_end_for_want_of_bodies_is_not_asked(
    reader: DearReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = reader.read("key", pid, b"body")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.9 * IDLE_S)
    assert reader.read("key", pid, b"body") != first


class StopsWhoReadsIt:
    """An argument at which the reading process stops before it takes the body."""

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        return stops, (b"",)


def stops(body: bytes) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.process
def test_a_process_that_was_stopped_while_idle_is_replaced_unnoticed(reader: DearReader) -> None:
    first = reader.read("key", pid, b"body")
    os.kill(first, signal.SIGSTOP)
    assert eventually(lambda: is_stopped(first))
    assert reader.read("key", pid, b"body") != first


@pytest.mark.process
def test_a_process_that_is_stopped_while_it_reads_is_replaced_within_seconds(reader: DearReader) -> None:
    began = time.monotonic()
    with pytest.raises(Overloaded):
        reader.read("key", stops, b"body")
    assert time.monotonic() - began < 10
    assert reader.read("other", halves, b"body", 1) == b"bo"


@pytest.mark.process
def test_a_process_that_takes_no_more_of_a_body_keeps_nobody_past_its_deadline(reader: DearReader) -> None:
    reader.read("key", pid, b"body")
    with pytest.raises(DeadlineExceeded):
        reader.read("key", halves, bytes(3_000_000), StopsWhoReadsIt(), within_s=0.5)
    assert reader.read("other", halves, b"body", 1) == b"bo"


@pytest.mark.process
def test_time_that_runs_out_ends_the_reading() -> None:
    with closing(DearReader(8.0)) as reader:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            reader.read("key", sleeps, b"body")
        assert time.monotonic() - began < 30
        assert reader.read("key", halves, b"body", 1) == b"bo"


@pytest.mark.slow
def test_every_kind_stays_within_the_limits_of_bytes() -> None:
    for kind in KINDS.values():
        made = kind()
        assert len(made.body) <= (20 if made.path == VISION and "form" in made.headers["Content-Type"] else 16) << 20


def test_reading_makes_way_for_the_threads_that_others_wait_for(dear_reader: DearReader) -> None:
    assert dear_reader.read("a", niceness, b"") > os.getpriority(os.PRIO_PROCESS, 0)


def niceness(_body: bytes) -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.parametrize("written", ["AB \n", "%41B==="[:4], "ABCD", "AB\r\nC"])
def test_a_file_in_a_dear_body_comes_as_its_bytes(dear_reader: DearReader, written: str) -> None:
    """Its worker would have to hand its base64 back to the same process."""
    text = written * 100_000
    body = json.dumps({"image": text, "video": f"data:video/mp4;base64,{text}", "prompt": "?"}).encode()
    asked = dear_reader.read("a", parse_vision, body)
    image, video = asked.conversation.shown()
    assert image.data == video.data == bytes_of_base64(text, len(text))


@pytest.mark.parametrize("written", ["AB !", "https://a.example/", "\u00e4"])
def test_what_is_no_file_comes_as_it_was_sent(dear_reader: DearReader, written: str) -> None:
    """Whoever wants the file knows better how to refuse it, and what a URL is."""
    text = written * 300_000
    asked = dear_reader.read("a", parse_vision, json.dumps({"image": text, "prompt": "?"}).encode())
    assert asked.conversation.images()[0].data == text
