"""Images built to cost more than they show: refused by their structure, or ended while they are decoded."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hostile_images as made
import pytest
from decoding import limits
from decoding_cost import cost_of, decoder_pids, is_decoder, planes
from eventually import eventually
from flask.testing import FlaskClient
from live_gateway import running_gateway
from samples import OPENAI_URL, URL, ask, assert_problem

import gateway.images.decoder_pool as pools
from gateway.chat.image_decoder import ImageSizeLimits, OpenedImage
from gateway.chat.service import ChatService
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.images.job import PIXEL_NS
from gateway.images.structure import read_structure
from gateway.schemas.common import Sampling
from gateway.schemas.conversation import Conversation, SentImage, Turn
from gateway.settings import GatewaySettings
from gateway.triton.backend import Cancellation, FakeBackend
from glmserve.errors import BadImage, Cancelled, DeadlineExceeded, GlmServeError, Overloaded

Pids = Callable[[], list[int]]
MEGA = 1_000_000
MIB = 1 << 20
WAIT_S = 20
STRUCTURE_S = 0.005
FREED_S = 0.5
NOISE_S = 0.5  # by which the kernel's clock of a process is late on a loaded machine
GRANTED_S = GatewaySettings.model_fields["image_cpu_s"].default

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    **{
        f"jpeg of {count} {way} scans of {side} x {side}": (
            lambda s=side, c=count, w=way: made.jpeg_scans(s, c, w),
            "64 scans",
        )
        for side, count, way in (
            (7000, 100, "first"),
            (7000, 1000, "first"),
            (7000, 5000, "refine"),
            (2048, 15_000, "first"),
            (64, 1000, "narrow"),
        )
    },
    "jpeg whose 63 scans visit one coefficient each": (lambda: made.jpeg_scans(7000, 63, "narrow"), "coefficients"),
    "jpeg of 60 sequential scans": (lambda: made.jpeg_scans(7000, 60, "sequential", 3), "20 times"),
    "jpeg of 4000 sequential scans": (lambda: made.jpeg_scans(1000, 4000, "sequential", 3), "64 scans"),
    "jpeg of scans behind megabytes of stuffed bytes": (
        lambda: made.jpeg_scans(4000, 5000, padding=6 * MEGA),
        "bytes are stuffed",
    ),
    "jpeg of exif in pieces, 1 MB": (lambda: made.jpeg_exif(MEGA), "1,024 segments"),
    "jpeg of exif in pieces, 4 MB": (lambda: made.jpeg_exif(4 * MEGA), "1,024 segments"),
    "jpeg of exif in pieces, 15 MB": (lambda: made.jpeg_exif(15 * MEGA), "1,024 segments"),
    "jpeg of exif in longer pieces": (lambda: made.jpeg_exif(8 * MEGA, b"B" * 500), "1,024 segments"),
    "jpeg of empty application segments": (lambda: made.jpeg_segments(0xE5, 3 * MEGA), "1,024 segments"),
    "jpeg of empty comments": (lambda: made.jpeg_segments(0xFE, 3 * MEGA), "1,024 segments"),
    "jpeg of empty restart intervals": (lambda: made.jpeg_segments(0xDD, 50_000, b"\0\1"), "segments"),
    "jpeg of markers without content": (lambda: made.jpeg_with(b"\xff\xd0" * 5 * MEGA), "1,024 segments"),
    "jpeg of filler": (lambda: made.jpeg_filler(15 * MEGA), "bytes of filler"),
    "jpeg of junk": (lambda: made.jpeg_with(b"\xff\xfe\0\2" + bytes(15 * MEGA)), "bytes of filler"),
    "jpeg of filler before each of a few segments": (
        lambda: made.jpeg_with((b"\xff" * 10_000 + b"\xff\xe5\0\2") * 900),
        "bytes of filler",
    ),
    "jpeg of quantisation tables": (
        lambda: made.jpeg_segments(0xDB, 200, (b"\0" + b"\1" * 64) * 1000),
        "bytes of tables",
    ),
    "jpeg of huffman tables": (lambda: made.jpeg_segments(0xC4, 200, (b"\0" + bytes(16)) * 3800), "bytes of tables"),
    "png of private chunks": (lambda: made.png_chunks(b"abCd", MEGA), "2,048 chunks"),
    "png of private chunks with content": (lambda: made.png_chunks(b"abCd", 100_000, b"A" * 99), "2,048 chunks"),
    "png of palettes": (lambda: made.png_chunks(b"PLTE", 100_000, b"\0\0\0"), "2,048 chunks"),
    "png of texts": (lambda: made.png_texts(500_000), "2,048 chunks"),
    "png of empty pixel chunks": (lambda: made.png_data_chunks(MEGA), "10,000 chunks"),
    "gif of one comment of single letters": (lambda: made.gif_comment(7 * MEGA), "16,384 blocks"),
    "gif of one comment of long blocks": (lambda: made.gif_comment(60_000, b"A" * 255), "16,384 blocks"),
    "gif of comments": (lambda: made.gif_comments(3 * MEGA), "16,384 blocks"),
    "gif of junk": (lambda: made.gif_junk(15 * MEGA), "16,384 blocks"),
    "webp of chunks": (lambda: made.webp_chunks(MEGA), "4,096 chunks"),
    "webp of chunks with content": (lambda: made.webp_chunks(100_000, b"A" * 99), "4,096 chunks"),
    "progressive jpeg of 50 megapixels": (lambda: made.jpeg_scans(7071, 0, components=3), "MiB of memory"),
    "png of 48 bits a pixel, 50 megapixels": (lambda: made.png(7071, 16, 2), "MiB of memory"),
    "webp of 20 megapixels": (lambda: made.webp(4500), "MiB of memory"),
}

BOUNDED: dict[str, Callable[[], bytes]] = {
    "jpeg of an exif directory that points at one place": made.jpeg_exif_values,
    "jpeg of a first scan alone, 49 megapixels": lambda: made.jpeg_scans(7000, 0),
    "jpeg of one component in 4000 sequential scans": lambda: made.jpeg_scans(7000, 4000, "sequential"),
    "jpeg of five scans, 49 megapixels": lambda: made.jpeg_scans(7000, 5, "refine"),
    "jpeg of three components and 15 scans": lambda: made.jpeg_scans(4700, 15, "refine", 3),
    "jpeg of 63 scans of a small picture": lambda: made.jpeg_scans(1000, 63, "refine"),
    "png of 1,500 private chunks": lambda: made.png_chunks(b"abCd", 1500),
    "png with chunks behind its pixels": lambda: made.png(after=made.png_chunk(b"abCd") * MEGA),
    "png of text that grows": lambda: made.png_zipped(b"zTXt", 300 * MEGA),
    "png of many texts that grow": lambda: made.png_zipped(b"zTXt", MEGA, 60),
    "png of translated text that grows": lambda: made.png_zipped(b"iTXt", 300 * MEGA),
    "png of a profile that grows": lambda: made.png_zipped(b"iCCP", 300 * MEGA),
    "png of exif that begins again and again": lambda: made.png_chunks(b"eXIf", 1, b"Exif\0\0" * 2 * MEGA),
    "png of 50 megapixels": lambda: made.png(7071),
    "png of 50 megapixels with alpha": lambda: made.png(7071, 8, 6),
    "png of 50 megapixels grey with alpha": lambda: made.png(7071, 8, 4),
    "png of 50 megapixels in 16 bits": lambda: made.png(7071, 16, 0),
    "png of 50 megapixels in one bit": lambda: made.png(7071, 1, 0),
    "png of 50 megapixels with a clear palette": lambda: made.png(
        7071, 8, 3, made.png_chunk(b"PLTE", bytes(range(256)) * 3) + made.png_chunk(b"tRNS", bytes(256))
    ),
    "png of tall 40 megapixels with alpha": lambda: made.png(3000, 8, 6, height=13_000),
    "png of compressed blocks without content": lambda: made.png_deflate_blocks(1_200_000),
    "gif of 50 megapixels with a clear colour": lambda: made.gif(7071),
    "bmp of line ends, 8 bits": lambda: made.bmp_line_ends(7071, 7071),
    "bmp of line ends, wide": lambda: made.bmp_line_ends(99_990, 500),
    "bmp of line ends, 4 bits": lambda: made.bmp_line_ends(7071, 7071, 4),
    "bmp of runs past the row": lambda: made.bmp_runs_past_the_row(7071, 7 * MEGA),
    "bmp of single pixels, 8 bits": lambda: made.bmp_single_pixels(2700, 2700),
    "bmp of single pixels, 4 bits": lambda: made.bmp_single_pixels(2700, 2700, 4),
    "webp of 12 megapixels": lambda: made.webp(3464),
    "webp of 16 megapixels": lambda: made.webp(4000),
    "webp of 500 frames": lambda: made.webp_frames(64, 500),
}
"""Accepted or refused, but never at more than what an image of so many pixels may take."""

HONEST = ("png of 50", "png of tall", "gif of 50", "bmp of line ends", "webp of 1", "jpeg of a first scan")

SLOW = made.bmp_single_pixels(2700, 2700)
"""Two seconds of processor time."""
PATIENT = ImageSizeLimits(15 * MIB, 50 * MEGA, 2048, True, cpu_s=60)


@pytest.fixture
def pids() -> Pids:
    """The decoding processes that a test has started."""
    others = set(decoder_pids())
    return lambda: [pid for pid in decoder_pids() if pid not in others]


@pytest.fixture
def pool(pids: object) -> Iterator[DecoderPool]:
    with closing(DecoderPool()) as pool:
        yield pool


@pytest.mark.parametrize("name", REFUSED)
def test_a_structure_that_costs_is_refused_before_anything_is_decoded(name: str) -> None:
    maker, words = REFUSED[name]
    data = maker()
    took_s = []
    for _ in range(5):
        before_s = time.thread_time()
        with pytest.raises(BadImage) as refusal:
            OpenedImage(data, limits(), "images[2]")
        took_s.append(time.thread_time() - before_s)
    assert words in refusal.value.message and refusal.value.field == "images[2]"
    assert min(took_s) < STRUCTURE_S


@pytest.mark.parametrize("name", BOUNDED)
def test_no_file_takes_more_than_its_pixels_are_granted(name: str) -> None:
    cost = cost_of(BOUNDED[name]())
    assert cost.structure_s < 4 * STRUCTURE_S
    assert cost.cpu_s < GRANTED_S + cost.pixels * PIXEL_NS / 1e9 + NOISE_S, cost
    assert cost.grown_bytes < 200 * MIB, cost
    assert cost.refusal is None or not name.startswith(HONEST), cost


def test_what_runs_out_of_processor_time_is_told_so() -> None:
    cost = cost_of(made.png_deflate_blocks(1_200_000))
    assert cost.refusal is not None and "more than 0.8 s of processor time" in cost.refusal


@pytest.mark.parametrize("megabytes", [20, 60])
def test_what_runs_out_of_memory_is_told_so(megabytes: int) -> None:
    cost = cost_of(made.png(3000, 8, 6), ImageSizeLimits(15 * MIB, 50 * MEGA, 100, True, megabytes * MIB))
    assert (cost.refusal is None) == (megabytes == 60)
    assert cost.refusal is None or "more than 20 MiB of memory" in cost.refusal


@pytest.mark.parametrize("url", [URL, OPENAI_URL])
def test_a_refusal_names_the_field_and_the_reason(client: FlaskClient, url: str) -> None:
    data = base64.b64encode(made.jpeg_scans(500, 100)).decode()
    if url == URL:
        response = ask(client, data)
        assert_problem(response, 400, "The image has more than 64 scans; at most 64 are accepted.")
        return
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": f"data:image/jpeg;base64,{data}"}]
    response = client.post(url, json={"messages": [{"role": "user", "content": content}]})
    assert_problem(response, 400, "more than 64 scans")
    assert response.get_json()["error"]["param"] == "messages[0].content[0].image_url"


def test_a_client_that_leaves_ends_decoding_at_once(pool: DecoderPool, pids: Pids) -> None:
    cancellation, left = Cancellation(), threading.Event()
    opened = OpenedImage(SLOW, PATIENT)
    planes(pool, made.small_jpeg(), PATIENT)
    said_s = [0.0]

    def leave() -> None:
        left.wait(0.2)
        said_s[0] = time.monotonic()
        cancellation.say()

    thread = threading.Thread(target=leave)
    thread.start()
    with pytest.raises(Cancelled):
        opened.planes(pool, opened.size, Deadline.after(WAIT_S), cancellation)
    assert time.monotonic() - said_s[0] < FREED_S
    thread.join(WAIT_S)
    assert pids() == []
    planes(pool, made.small_jpeg(), PATIENT)


def test_a_deadline_ends_decoding_at_once(pool: DecoderPool, pids: Pids) -> None:
    opened = OpenedImage(SLOW, PATIENT)
    planes(pool, made.small_jpeg(), PATIENT)
    begun_s = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        opened.planes(pool, opened.size, Deadline.after(0.2), Cancellation())
    assert time.monotonic() - begun_s < 0.2 + FREED_S
    assert pids() == []


def test_a_departure_gives_the_decoding_place_to_the_next(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # decoding processes of its own
    service = ChatService(GatewaySettings(build=build, image_decoders=1, image_cpu_s=60), FakeBackend())
    with closing(service.decoders):
        service.prepare(_asked(made.small_jpeg()), Deadline.after(WAIT_S), Cancellation())
        cancellation, outcome = Cancellation(), list[GlmServeError]()

        def ask_and_leave() -> None:
            try:
                service.prepare(_asked(SLOW), Deadline.after(WAIT_S), cancellation)
            except GlmServeError as error:
                outcome.append(error)

        thread = threading.Thread(target=ask_and_leave)
        thread.start()
        assert eventually(lambda: service._image_decoders.state()[0] == 1)
        cancellation.say()
        begun_s = time.monotonic()
        service.prepare(_asked(made.small_jpeg()), Deadline.after(WAIT_S), Cancellation())
        assert time.monotonic() - begun_s < FREED_S + NOISE_S  # a new process among it
        thread.join(WAIT_S)
        assert [type(error) for error in outcome] == [Cancelled]


def test_leaving_after_an_image_was_decoded_ends_nobody_elses(pool: DecoderPool, pids: Pids) -> None:
    cancellation = Cancellation()
    opened = OpenedImage(made.small_jpeg(), PATIENT)
    opened.planes(pool, opened.size, Deadline.after(WAIT_S), cancellation)
    before = pids()
    cancellation.say()
    planes(pool, made.small_jpeg(), PATIENT)
    assert pids() == before and len(before) == 1


@pytest.mark.parametrize(
    ("sent", "expected"),
    [(signal.SIGSEGV, BadImage), (signal.SIGKILL, Overloaded), (signal.SIGSTOP, DeadlineExceeded)],
)
def test_a_process_that_dies_or_hangs_is_replaced(
    pool: DecoderPool, pids: Pids, sent: signal.Signals, expected: type[GlmServeError]
) -> None:
    planes(pool, made.small_jpeg(), PATIENT)
    (pid,) = pids()
    timer = threading.Timer(0.2, os.kill, (pid, sent))
    timer.start()
    opened = OpenedImage(SLOW, PATIENT)
    with pytest.raises(expected):
        opened.planes(pool, opened.size, Deadline.after(1.0), Cancellation())
    timer.join(WAIT_S)
    planes(pool, made.small_jpeg(), PATIENT)
    assert pid not in pids()


def test_a_process_that_died_while_idle_is_replaced_unnoticed(pool: DecoderPool, pids: Pids) -> None:
    planes(pool, made.small_jpeg(), PATIENT)
    (pid,) = pids()
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: _state(pid) == "Z")
    planes(pool, made.small_jpeg(), PATIENT)


def test_a_process_is_replaced_after_many_images(
    pool: DecoderPool, pids: Pids, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_JOBS_A_PROCESS", 2)
    seen = set()
    for _ in range(4):
        planes(pool, made.small_jpeg(), PATIENT)
        seen.update(pids())
    assert len(seen) == 2


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_killed_worker_leaves_no_process(is_busy: bool, tmp_path: Path) -> None:
    file = tmp_path / "slow.bmp"
    file.write_bytes(SLOW)
    program = (
        "import sys, decoding_cost as c, hostile_images as made\n"
        "from gateway.chat.image_decoder import ImageSizeLimits\n"
        "from gateway.images.decoder_pool import DecoderPool\n"
        "pool, patient = DecoderPool(), ImageSizeLimits(1 << 24, 50_000_000, 2048, True, cpu_s=60)\n"
        "c.planes(pool, made.small_jpeg(), patient)\n"
        "print(*c.decoder_pids(), flush=True)\n"
        f"data = open({str(file)!r}, 'rb').read()\n"
        f"c.planes(pool, data, patient) if {is_busy} else input()\n"
    )
    path = os.pathsep.join(filter(None, [str(Path(made.__file__).parent), os.environ.get("PYTHONPATH")]))
    worker = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        time.sleep(0.3 if is_busy else 0)  # into the middle of the image
        worker.kill()
        worker.wait(WAIT_S)
        assert eventually(lambda: _state(pid) in ("", "Z", "X"), FREED_S)


def test_closing_ends_all_processes(pids: Pids) -> None:
    with closing(DecoderPool()) as pool:
        planes(pool, made.small_jpeg(), PATIENT)
        assert len(pids()) == 1
    assert pids() == []


def test_a_decoding_process_knows_no_settings(pool: DecoderPool, pids: Pids, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_GATEWAY_REDIS_URL", "redis://:secret@host")
    planes(pool, made.small_jpeg(), PATIENT)
    (pid,) = pids()
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_what_is_handed_to_the_decoder_holds_no_notes() -> None:
    noted = made.png_chunks(b"tEXt", 1000, b"k\0" + b"words" * 9)
    assert sum(map(len, read_structure(noted).parts)) < 1000


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_the_processes_of_a_served_worker_end_with_it(build: Path, sent: signal.Signals) -> None:
    with running_gateway(build) as running:
        body = {"image": base64.b64encode(made.small_jpeg()).decode(), "prompt": "Hi"}
        request = urllib.request.Request(
            running.url + URL, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
            assert reply.status == 200
        (decoder,) = _decoders_of(running.pid)
        os.kill(_parent(decoder) if sent is signal.SIGKILL else running.pid, sent)
        assert eventually(lambda: _state(decoder) in ("", "Z", "X"))


def _state(pid: int) -> str:
    """One letter, nothing for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _asked(data: bytes) -> Conversation:
    return Conversation((Turn("user", (SentImage(data), "Hi")),), Sampling(1, 0.0, 1.0, 0, 0))


def _decoders_of(master: int) -> list[int]:
    """The decoding processes of a web server's workers."""
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return [pid for pid in pids if is_decoder(pid) and _parent(_parent(pid)) == master]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[1])
