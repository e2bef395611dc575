"""Decoding processes end with their image's time, with whoever waits for them, and with the worker that they serve."""

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

import hostile_images as made
import pytest
from decoding_cost import decoder_pids, is_decoder, planes
from eventually import eventually
from fake_backend import FakeBackend
from live_gateway import running_gateway
from samples import URL

import gateway.images.decoder_pool as pools
from gateway.chat.image_decoder import ImageSizeLimits, OpenedImage
from gateway.chat.service import ChatService
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.schemas.conversation import Conversation, SentImage, Turn
from gateway.settings import GatewaySettings
from gateway.triton.backend import Cancellation
from glmserve.errors import BadImage, Cancelled, DeadlineExceeded, GlmServeError, Overloaded
from glmserve.sampling_parameters import Sampling

Pids = Callable[[], list[int]]
MEGA = 1_000_000
MIB = 1 << 20
WAIT_S = 20
FREED_S = 0.5
START_S = 0.5  # of a new process on a loaded machine

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


def test_a_client_that_leaves_ends_decoding_at_once(pool: DecoderPool, pids: Pids) -> None:
    cancellation, left = Cancellation(), threading.Event()
    opened = OpenedImage(SLOW, PATIENT)
    planes(pool, made.small_jpeg(), PATIENT)
    said_s = [0.0]

    def leave() -> None:
        left.wait(0.2)
        said_s[0] = time.monotonic()
        cancellation.cancel()

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


@pytest.mark.process
def test_a_departure_gives_the_decoding_place_to_the_next(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # decoding processes of its own
    service = ChatService(GatewaySettings(build=build, image_decoders=1, image_cpu_s=60), FakeBackend())
    with closing(service.decoders):
        began_s = time.monotonic()
        service.prepare(_asked(made.small_jpeg()), Deadline.after(WAIT_S), Cancellation())
        start_s = time.monotonic() - began_s  # of a new process, on this machine as busy as it is
        cancellation, outcome = Cancellation(), list[GlmServeError]()

        def ask_and_leave() -> None:
            try:
                service.prepare(_asked(SLOW), Deadline.after(WAIT_S), cancellation)
            except GlmServeError as error:
                outcome.append(error)

        thread = threading.Thread(target=ask_and_leave)
        thread.start()
        assert eventually(lambda: service._image_decoders.counts()[0] == 1)
        cancellation.cancel()
        begun_s = time.monotonic()
        service.prepare(_asked(made.small_jpeg()), Deadline.after(WAIT_S), Cancellation())
        assert time.monotonic() - begun_s < FREED_S + max(START_S, 2 * start_s)  # a new process among it
        thread.join(WAIT_S)
        assert [type(error) for error in outcome] == [Cancelled]


def test_leaving_after_an_image_was_decoded_ends_nobody_elses(pool: DecoderPool, pids: Pids) -> None:
    cancellation = Cancellation()
    opened = OpenedImage(made.small_jpeg(), PATIENT)
    opened.planes(pool, opened.size, Deadline.after(WAIT_S), cancellation)
    before = pids()
    cancellation.cancel()
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


def test_a_process_that_was_stopped_while_idle_is_replaced_unnoticed(pool: DecoderPool, pids: Pids) -> None:
    planes(pool, made.small_jpeg(), PATIENT)
    (pid,) = pids()
    os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: _state(pid) == "T")
    planes(pool, made.small_jpeg(), PATIENT)
    assert pid not in pids()


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
    return Conversation((Turn("user", (SentImage(data), "Hi")),), Sampling(max_tokens=1))


def _decoders_of(master: int) -> list[int]:
    """The decoding processes of a web server's workers."""
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return [pid for pid in pids if is_decoder(pid) and _parent(_parent(pid)) == master]


def _parent(pid: int) -> int:
    """0 for a process that has ended: other tests have decoding processes too."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return 0
