"""A short soak of the whole service: every request ends as its kind must, and each part is measured."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from shared_builds import build_of_demo, copied

from bench.load.prompts import Question
from bench.measure import service_soak
from bench.measure.soak import Endings


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> service_soak.ServiceSummary:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service_soak, "_CROWD_S", 2.0)
        patch.setattr(service_soak, "_RUN_UP_S", 1.0)
        patch.setattr(service_soak, "_SETTLE_S", 1.0)
        made = copied(build_of_demo(), tmp_path_factory.mktemp("soak"))
        return service_soak.soak(made, minutes=1 / 10, threads=1, seed=0, say=print)


@pytest.mark.triton
def test_every_request_ends_as_its_kind_must(summary: service_soak.ServiceSummary) -> None:
    assert set(summary.endings) <= {"answered", "streamed", "text", "by schema", "left", "refused: 400"}
    assert {"answered", "streamed", "refused: 400"} <= set(summary.endings)
    assert summary.requests == sum(summary.endings.values())
    assert json.loads(json.dumps(asdict(summary) | {"passed": summary.passed}))["load"] == 0.7


@pytest.mark.triton
def test_each_part_of_the_service_is_measured(summary: service_soak.ServiceSummary) -> None:
    assert set(summary.parts) == {"Triton", "gateway"}
    assert all(part.own_mib > 20 for part in summary.parts.values())


@pytest.mark.triton
def test_a_soak_fails_for_growth_and_for_a_wrong_ending(summary: service_soak.ServiceSummary) -> None:
    calm = service_soak.Growth(100.0, 0.0, 0.0, 0, 0)
    good = replace(summary, parts={"Triton": calm, "gateway": calm}, endings=dict.fromkeys(summary.endings, 1))
    assert replace(good, endings=dict.fromkeys(service_soak.RIGHT, 1)).passed
    assert not replace(good, endings=dict.fromkeys((*service_soak.RIGHT, "left: 503"), 1)).passed
    for worse in (replace(calm, own_growth_mib=20.0), replace(calm, thread_growth=1), replace(calm, file_growth=2)):
        assert not replace(good, endings=dict.fromkeys(service_soak.RIGHT, 1), parts={"gateway": worse}).passed


def test_growth_is_a_line_through_memory_and_the_least_of_threads_and_files() -> None:
    at_s = np.arange(0.0, 3600.0, 5.0)
    chance = np.random.default_rng(0)
    noise = chance.normal(0, 0.5, len(at_s))
    threads, files = 30 + chance.integers(0, 5, len(at_s)), 50 + chance.integers(0, 9, len(at_s)) + (at_s > 1800)
    grown = service_soak.growth(at_s, np.stack([300 + at_s / 3600 + noise, threads, files], axis=1))
    assert 0.8 < grown.own_mib_per_hour < 1.2 and grown.thread_growth == 0 and grown.file_growth == 1


CALM = service_soak.Growth(100.0, 0.0, 0.0, 0, 0)
GOOD = service_soak.ServiceSummary(
    seed=0,
    seconds=3600.0,
    capacity_per_s=10.0,
    load=0.7,
    requests=6,
    endings=dict.fromkeys(service_soak.RIGHT, 1),
    parts={"Triton": CALM, "gateway": CALM},
)


def test_a_part_that_shrinks_hides_none_that_grows() -> None:
    parts = {"Triton": replace(CALM, own_growth_mib=-30.0), "gateway": replace(CALM, own_growth_mib=9.0)}
    assert GOOD.passed and not replace(GOOD, parts=parts).passed


def test_a_soak_that_fails_says_why() -> None:
    few = {how: 1 for how in service_soak.RIGHT if how != "left"} | {"text: 503": 4}
    worse = {"gateway": replace(CALM, own_growth_mib=9.0, thread_growth=2, file_growth=3)}
    assert GOOD.faults == []
    assert replace(GOOD, endings=few, parts=worse).faults == [
        "4 requests ended wrongly: text: 503.",
        "503: at 70% nobody is refused, unless other programs take the machine.",
        "No request ended so: left. Let it run longer.",
        "Memory grew by 9.0 MiB after the warm-up; 8 MiB may be.",
        "gateway has 2 more threads than after the warm-up.",
        "gateway has 3 more open files than after the warm-up.",
    ]


def test_a_short_soak_says_that_it_tells_no_growth() -> None:
    grown = replace(GOOD, parts={"gateway": replace(CALM, own_growth_mib=9.0)}, seconds=12.0)
    assert not grown.passed and grown.faults[0].endswith("does not tell growth from warming up.")


def load_of(request: service_soak.Request, per_s: float) -> service_soak._Load:
    return service_soak._Load("", request, per_s, random.Random(0), Endings(), {"test": os.getpid()}, print)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_SETTLE_S", 0.0), ("_RUN_UP_S", 0.0), ("_CROWD_S", 0.2), ("_SAMPLE_EVERY_S", 0.1)):
        monkeypatch.setattr(service_soak, name, value)


@pytest.mark.usefixtures("no_pauses")
def test_a_request_that_fails_in_a_way_nobody_foresaw_is_counted() -> None:
    def fails(_url: str, _chance: random.Random) -> str:
        raise ZeroDivisionError

    load = load_of(fails, 100.0)
    load.arrive(0.2)
    assert set(load.ended.counts) == {"failed: ZeroDivisionError"}


@pytest.mark.usefixtures("no_pauses")
def test_arrivals_that_a_slow_service_holds_back_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_soak, "_MOST_AT_ONCE", 2)

    def slow(_url: str, _chance: random.Random) -> str:
        time.sleep(0.3)
        return "answered"

    load = load_of(slow, 1000.0)
    load.arrive(0.3)
    assert load.ended.counts["not sent: 2 under way"] > 0


@pytest.mark.usefixtures("no_pauses")
def test_samples_that_take_longer_than_their_turn_end_no_soak(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the machine was suspended: the next sample is overdue, and the next request is not."""

    def late(_pid: int) -> tuple[float, int, int]:
        time.sleep(0.05)
        return 1.0, 1, 1

    monkeypatch.setattr(service_soak, "_taken", late)
    assert len(load_of(lambda _url, _chance: "answered", 1e-3).arrive(0.2)) >= 2


@pytest.mark.usefixtures("no_pauses")
def test_the_shortest_run_has_samples_enough_for_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_soak, "_SAMPLE_EVERY_S", 5.0)
    assert len(load_of(lambda _url, _chance: "answered", 10.0).arrive(0.4)) >= 3


def test_bursts_go_on_until_no_thread_is_started_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, bursts = iter((10, 30, 64, 64, 70)), Endings()
    monkeypatch.setattr(service_soak, "_taken", lambda _pid: (1.0, next(threads), 1))

    def answered(_url: str, _chance: random.Random) -> str:
        bursts.add("answered", 0)
        return "answered"

    load_of(answered, 1.0).fill()
    assert bursts.counts.total() == 4 * 64


@pytest.mark.usefixtures("no_pauses")
def test_what_is_refused_is_no_capacity() -> None:
    endings = Endings()

    def half(_url: str, chance: random.Random) -> str:
        time.sleep(0.01)
        how = chance.choice(("answered", "answered: 503"))
        endings.add(how, 0)
        return how

    assert service_soak._capacity("", half) == pytest.approx(endings.counts["answered"] / 0.2)


@pytest.mark.usefixtures("no_pauses")
def test_a_service_that_answers_nobody_has_no_capacity() -> None:
    def refused(_url: str, _chance: random.Random) -> str:
        time.sleep(0.01)
        return "answered: 504"

    with pytest.raises(service_soak.NothingAnswered, match=r"\d+ answered: 504\. .*--checkpoint"):
        service_soak._capacity("", refused)


@pytest.fixture
def answering() -> Iterator[Callable[[str, bytes], str]]:
    """Gives the address of a server that answers every POST with 200, this type and these bytes."""
    reply = ["", b""]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", str(reply[0]))
            self.end_headers()
            self.wfile.write(bytes(reply[1]))

        def log_message(self, format: str, *args: object) -> None:
            pass

    def address(kind: str, body: bytes) -> str:
        reply[:] = kind, body
        return f"http://127.0.0.1:{server.server_port}"

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield address
        server.shutdown()
        thread.join()


def test_a_reply_that_is_no_json_ended_wrongly(answering: Callable[[str, bytes], str]) -> None:
    url = answering("application/json", b'{"choices": [')
    assert service_soak._text(url, random.Random(0)) == "text: 0"
    assert service_soak._by_schema(url, random.Random(0)) == "by schema: 0"


def test_a_stream_that_begins_with_an_error_or_with_no_json_was_not_left(
    answering: Callable[[str, bytes], str],
) -> None:
    questions = [Question(b"", "?")]
    for body, how in ((b'data: {"error": "no"}\n\n', "left: error event"), (b"data: {oops\n\n", "left: broken")):
        url = answering("text/event-stream", body)
        endings = {service_soak._left(questions, url, random.Random(seed)) for seed in range(8)}
        assert endings == {how, "left"}  # some leave before the first event
