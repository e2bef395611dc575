"""One fault at a time on a real service: what its clients see of it is allowed, and soon it answers again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest
from clients import Client, Habits, Recorder, questions
from eventually import eventually
from history import Ended, How, PieceCame, Terms, check, compare_levels, tally
from proxy import Proxy
from service import Role, Service, running_service, send, settle
from slow_build import write_slow_build

from demo.golden_set import GoldenQuestion

pytestmark = [pytest.mark.triton, pytest.mark.timeout(120)]
STREAMS = 6
STEP_S = 0.08
ENDS_WITHIN_S = 2.0
BACK_WITHIN_S = 15.0
STILL_S = 8.0
PATIENT = Habits(streams=1.0, closes=0.0, leaves=0.0, openai=0.5, pause_s=0.0)
LONGEST = sorted((q for q in questions() if q.has_image), key=lambda q: len(q.answer_ids))[-STREAMS:]


@pytest.fixture(scope="module")
def service(demo_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("faults")
    with running_service(folder, write_slow_build(demo_build, folder, STEP_S)) as running:
        assert running.pids(Role.STUB) and running.pids(Role.WORKER)
        yield running


class Crowd:
    """Clients that each ask for one long stream; `recorder` has what they see."""

    def __init__(self, url: str, name: str) -> None:
        self.recorder = Recorder()
        self.clients = [Client(f"{name}-{number}", url, self.recorder, number, PATIENT) for number in range(STREAMS)]

    def endings(self) -> list[Ended]:
        return [event for event in self.recorder.events if isinstance(event, Ended)]

    def told(self) -> set[str]:
        """Those who have read a piece."""
        return {event.request_id for event in self.recorder.events if isinstance(event, PieceCame)}

    def is_in_mid_stream(self) -> bool:
        """Whether all have begun; nobody has ended by then."""
        return len(self.told()) == len(self.clients)


@contextmanager
def streams(service: Service, name: str) -> Iterator[Crowd]:
    """Runs the block when every stream has begun and none has ended, and then waits for all ends."""
    crowd = Crowd(service.url, name)
    with ThreadPoolExecutor(STREAMS) as pool:
        asked = [pool.submit(ask, client, question) for client, question in zip(crowd.clients, LONGEST, strict=True)]
        assert eventually(crowd.is_in_mid_stream, 20) and not crowd.endings()
        yield crowd
        for one in asked:
            one.result()


def ask(client: Client, question: GoldenQuestion) -> None:
    client.ask(question)
    client.close()


def seconds_until_an_answer(service: Service, since_s: float) -> float:
    """From a moment on, until a question is answered; all that came before is judged too."""
    recorder = Recorder()
    client = Client("after", service.url, recorder, 0, PATIENT)
    greeting = next(question for question in questions() if not question.has_image)

    def is_answered() -> bool:
        end = client.ask(greeting)[-1]
        return isinstance(end, Ended) and end.how is How.DONE

    assert eventually(is_answered, 2 * BACK_WITHIN_S)
    client.close()
    assert check(recorder.events) == []
    return time.monotonic() - since_s


@pytest.mark.parametrize("role", [Role.STUB, Role.TRITON])
def test_a_killed_part_of_triton_ends_its_streams_with_one_error_each_and_is_replaced(
    service: Service, role: Role
) -> None:
    with streams(service, role.value.replace(" ", "-")) as crowd:
        killed_at = time.monotonic()
        assert send(service.pids(role)[0], SIGKILL)
    assert check(crowd.recorder.events) == []
    assert tally(crowd.recorder.events) == {"error event": STREAMS}
    assert max(end.at_s for end in crowd.endings()) - killed_at < ENDS_WITHIN_S
    assert seconds_until_an_answer(service, killed_at) < BACK_WITHIN_S


def test_streams_go_on_in_order_after_the_model_stood_still_for_8_s(service: Service) -> None:
    (stub,) = service.pids(Role.STUB)
    with streams(service, "still") as crowd:
        send(stub, SIGSTOP)
        threading.Event().wait(STILL_S)
        assert send(stub, SIGCONT)
    assert check(crowd.recorder.events) == []
    assert tally(crowd.recorder.events) == {"done": STREAMS}
    assert service.pids(Role.STUB) == [stub], "nobody had to be replaced"


def test_a_killed_worker_breaks_its_own_streams_only_and_others_answer_at_once(service: Service) -> None:
    with streams(service, "worker") as crowd:
        killed_at = time.monotonic()
        send(service.pids(Role.WORKER)[0], SIGKILL)
        assert seconds_until_an_answer(service, killed_at) < ENDS_WITHIN_S
    ended = tally(crowd.recorder.events)
    assert set(ended) <= {"done", "broken"} and sum(ended.values()) == STREAMS
    assert check(crowd.recorder.events, Terms(breaks=((killed_at, killed_at + 1),))) == []
    assert eventually(lambda: len(service.pids(Role.WORKER)) == 2)
    assert settle(service), "the engine still runs what the dead worker had asked for"


@pytest.mark.parametrize("after_bytes", [1, 100, 500, 700, 1500])
def test_a_connection_that_is_cut_at_any_byte_ends_once_and_leaves_nothing_running(
    service: Service, after_bytes: int
) -> None:
    proxy = Proxy(service.web_port, lambda: after_bytes)
    recorder = Recorder()
    client = Client(f"cut-{after_bytes}", f"http://127.0.0.1:{proxy.port}", recorder, 0, PATIENT)
    ask(client, LONGEST[-1])
    proxy.close()
    assert tally(recorder.events) == {"broken": 1}
    assert check(recorder.events, Terms(breaking_clients=frozenset({client.name}))) == []
    assert settle(service, 5.0)


def test_a_slow_way_to_the_service_loses_nothing(service: Service) -> None:
    proxy = Proxy(service.web_port)
    proxy.delay_s = 0.5
    crowd = Crowd(f"http://127.0.0.1:{proxy.port}", "slow")
    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(ask, crowd.clients, LONGEST))
    proxy.close()
    assert check(crowd.recorder.events) == [] and tally(crowd.recorder.events) == {"done": STREAMS}


def test_crowds_that_leave_at_any_moment_leave_everything_as_it_was(service: Service) -> None:
    def crowd(name: str, leaves: float) -> None:
        recorder, stopping = Recorder(), threading.Event()
        habits = Habits(leaves=leaves, pause_s=0.05)
        clients = [Client(f"{name}-{n}", service.url, recorder, n, habits) for n in range(STREAMS)]
        with ThreadPoolExecutor(STREAMS) as pool:
            for client in clients:
                pool.submit(client.run, stopping)
            threading.Event().wait(2.0)
            stopping.set()
        assert check(recorder.events) == []
        assert settle(service)

    crowd("calm", leaves=0.0)
    before = service.levels()
    crowd("leaving", leaves=0.8)
    slack = {f"{role} {what}": 24.0 for role in Role for what in ("threads", "files")}
    assert compare_levels(before, service.levels(), slack) == []
