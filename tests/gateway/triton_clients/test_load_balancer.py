"""Several Tritons behind one setting share the work, and one that is down is passed over."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field

import grpc
import pytest
from slow_proxy import slow_proxy
from small_triton import WAIT_S, SmallTriton, a_request, message
from structlog.testing import capture_logs
from tritonclient.grpc import service_pb2_grpc

from gateway.chat.retry import where_there_is_room
from gateway.triton.backend import Chunk, GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from gateway.triton.load_balancer import LoadBalancer, addresses_of
from glmserve.contract import Finish
from glmserve.errors import BackendDown, GlmServeError, InvalidInput, Overloaded

ONE, TWO, THREE = (f"grpc://10.0.0.{number}:8001" for number in (1, 2, 3))


@dataclass
class Counted:
    """A backend that counts what it was asked, and is down on demand."""

    asked: int = 0
    is_down: bool = False
    is_closed: bool = False
    refusal: GlmServeError | None = None

    def generate(self, _request: GenerateRequest) -> Generator[Chunk]:
        self.asked += 1
        if self.is_down:
            raise BackendDown
        if self.refusal:
            raise self.refusal
        yield Chunk((1,), Finish.RUNNING)
        yield Chunk((), Finish.STOP)

    def models_ready(self) -> bool:
        return not self.is_down

    def close(self) -> None:
        self.is_closed = True


@dataclass
class World:
    """Replicas over counted backends, and a name server."""

    names: dict[str, list[str]] = field(default_factory=dict)
    backends: dict[str, Counted] = field(default_factory=dict)
    now_s: float = 0.0

    def replicas(self, urls: str) -> LoadBalancer:
        return LoadBalancer(urls, self.connect, self.look_up, lambda _urls: None, lambda: self.now_s)

    def connect(self, url: str) -> Counted:
        return self.backends.setdefault(url, Counted())

    def look_up(self, url: str) -> list[str]:
        if url in self.names and not self.names[url]:
            raise OSError
        return self.names.get(url, [url])

    def asked(self) -> list[int]:
        return [backend.asked for _, backend in sorted(self.backends.items())]


def answer(replicas: LoadBalancer) -> list[Chunk]:
    """All messages of one answer."""
    with replicas.choose() as backend:
        return list(backend.generate(a_request()))


def begun(replicas: LoadBalancer) -> ExitStack:
    """An answer whose first message has come; closing it gives it up."""
    with ExitStack() as stack:
        chunks = stack.enter_context(closing(stack.enter_context(replicas.choose()).generate(a_request())))
        next(chunks)
        return stack.pop_all()


def test_idle_replicas_take_turns() -> None:
    world = World()
    replicas = world.replicas(f"{ONE},{TWO},{THREE}")
    for _ in range(9):
        answer(replicas)
    assert world.asked() == [3, 3, 3]


def test_the_replica_with_the_least_to_do_is_next() -> None:
    world = World()
    replicas = world.replicas(f"{ONE},{TWO}")
    held = [begun(replicas) for _ in range(4)]
    held[1].close()
    held[3].close()
    again = begun(replicas)
    assert world.asked() == [2, 3]
    again.close()


def test_processes_do_not_all_begin_with_the_same_replica() -> None:
    urls = ",".join(f"grpc://10.0.0.{number}:8001" for number in range(1, 51))
    firsts = {LoadBalancer(urls, World().connect).take().url for _ in range(50)}
    assert len(firsts) > 10


def test_one_that_was_down_gets_nothing_until_it_is_ready_again() -> None:
    world = World()
    replicas = world.replicas(f"{ONE},{TWO}")
    world.backends[ONE].is_down = True
    with pytest.raises(BackendDown):
        answer(replicas)
    for _ in range(4):
        replicas.ask()
        answer(replicas)
    assert world.asked() == [1, 4]
    world.backends[ONE].is_down = False
    replicas.ask()
    answer(replicas)
    assert world.asked() == [2, 4]
    assert replicas.models_ready()


def test_another_try_may_help_only_where_one_is_not_known_to_be_down() -> None:
    world = World()
    replicas = world.replicas(f"{ONE},{TWO}")
    for url, may_help in ((ONE, True), (TWO, False)):
        world.backends[url].is_down = True
        with pytest.raises(BackendDown):
            answer(replicas)
        assert replicas.has_another() is may_help
    world.backends[ONE].is_down = False
    replicas.ask()
    assert replicas.has_another()


@pytest.mark.parametrize("refusal", [Overloaded(), InvalidInput("There are 2 places.", "n")])
def test_what_one_has_no_places_for_is_asked_of_the_others_and_it_is_left_alone_for_a_moment(
    refusal: GlmServeError,
) -> None:
    """A smaller Triton refused every second request while the other one idled."""
    world = World()
    replicas = world.replicas(f"{ONE},{TWO}")
    world.backends[ONE].refusal = refusal
    for _ in range(4):
        assert where_there_is_room(lambda: answer(replicas), replicas.has_room)
    assert world.asked() == [1, 4]
    world.now_s = 1.0
    assert where_there_is_room(lambda: answer(replicas), replicas.has_room)
    assert world.asked() == [2, 5]
    world.backends[TWO].refusal = refusal
    with pytest.raises(type(refusal)):
        where_there_is_room(lambda: answer(replicas), replicas.has_room)
    before = sum(world.asked())
    for _ in range(4):  # with all of them full, each request is one refusal, as it is with one Triton
        with pytest.raises(type(refusal)):
            where_there_is_room(lambda: answer(replicas), replicas.has_room)
    each = 1 if isinstance(refusal, Overloaded) else 2
    assert sum(world.asked()) == before + 4 * each


def test_what_a_small_one_never_has_places_for_is_asked_of_a_larger_one_that_is_full_now() -> None:
    """Else it were a mistake of the caller at one time, and none at another."""
    world = World()
    replicas = world.replicas(f"{ONE},{TWO}")
    world.backends[ONE].refusal = InvalidInput("There are 2 places.", "n")
    world.backends[TWO].refusal = Overloaded()
    for _ in range(5):
        with pytest.raises((InvalidInput, Overloaded)):
            answer(replicas)
        with pytest.raises(Overloaded):
            where_there_is_room(lambda: answer(replicas), replicas.has_room)


def test_other_mistakes_of_a_caller_are_told_at_once() -> None:
    world = World()
    replicas = world.replicas(f"{ONE},{TWO}")
    world.backends[ONE].refusal = InvalidInput("No grammar.", "grammar")
    with pytest.raises(InvalidInput):
        where_there_is_room(lambda: answer(replicas), replicas.has_room)
    assert world.asked() == [1, 0]


def test_when_all_are_down_they_are_tried_all_the_same() -> None:
    world = World()
    replicas = world.replicas(f"{ONE},{TWO}")
    for backend in world.backends.values():
        backend.is_down = True
    for _ in range(4):
        with pytest.raises(BackendDown):
            answer(replicas)
    assert world.asked() == [2, 2]


def test_a_name_stands_for_all_its_addresses_as_they_come_and_go() -> None:
    name = "grpc://triton:8001"
    world = World({name: [ONE, TWO]})
    with closing(world.replicas(name)) as replicas:
        held = begun(replicas)
        world.names[name] = [TWO, THREE]
        replicas.look_up()
        assert not world.backends[ONE].is_closed, "its answer is not over"
        held.close()
        assert world.backends[ONE].is_closed
        for _ in range(4):
            answer(replicas)
        assert world.asked() == [1, 2, 2]
        world.names[name] = []
        replicas.look_up()
        answer(replicas)
        assert sum(world.asked()) == 6, "a name server that fails takes nothing away"


def test_a_name_without_addresses_is_a_backend_that_is_down() -> None:
    name = "grpc://triton:8001"
    with closing(World({name: []}).replicas(name)) as replicas:
        assert not replicas.models_ready()
        with pytest.raises(BackendDown):
            answer(replicas)


def test_a_name_is_looked_up_and_an_address_is_not() -> None:
    assert addresses_of("grpc://localhost:8001") == ["grpc://127.0.0.1:8001"]
    assert addresses_of("grpc://[::1]:8001") == ["grpc://[::1]:8001"]


def test_random_deaths_never_leave_a_count_behind() -> None:
    chance, world = random.Random(4), World()
    replicas = world.replicas(f"{ONE},{TWO},{THREE}")
    under_way: list[ExitStack] = []
    for _ in range(2000):
        if chance.random() < 0.2:
            replicas.ask()
        backend = chance.choice(list(world.backends.values()))
        backend.is_down = chance.random() < 0.3
        if under_way and chance.random() < 0.5:
            under_way.pop(chance.randrange(len(under_way))).close()
        with suppress(BackendDown):
            under_way.append(begun(replicas))
    for held in under_way:
        held.close()
    for backend in world.backends.values():
        backend.is_down = False
    replicas.ask()
    before = world.asked()
    for _ in range(30):
        answer(replicas)
    assert [after - earlier for after, earlier in zip(world.asked(), before, strict=True)] == [10, 10, 10]


@pytest.fixture
def servers() -> Iterator[list[tuple[SmallTriton, grpc.Server, int]]]:
    with ExitStack() as stack:
        running = []
        for _ in range(2):
            servicer, server = SmallTriton(), grpc.server(ThreadPoolExecutor(2))
            servicer.script = lambda *_: iter([message([], Finish.STOP)])
            service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
            running.append((servicer, server, server.add_insecure_port("127.0.0.1:0")))
            server.start()
            stack.callback(lambda s=server: s.stop(None).wait(WAIT_S))
        yield running


def test_over_the_wire_one_that_is_gone_is_passed_over(servers: list[tuple[SmallTriton, grpc.Server, int]]) -> None:
    urls = ",".join(f"grpc://127.0.0.1:{port}" for _, _, port in servers)
    with closing(LoadBalancer(urls, lambda url: TritonBackend(url, 5))) as replicas, capture_logs():
        assert replicas.models_ready()
        for _ in range(4):
            answer(replicas)
        assert [len(servicer.received) for servicer, *_ in servers] == [2, 2]
        servers[0][1].stop(None).wait(WAIT_S)
        endings: Counter[str] = Counter()
        for _ in range(6):
            try:
                answer(replicas)
                endings["ok"] += 1
            except BackendDown:
                endings["down"] += 1
        assert endings == {"ok": 5, "down": 1}
        assert replicas.models_ready()


@pytest.mark.slow
def test_a_triton_that_is_two_seconds_away_is_slow_and_not_down(
    servers: list[tuple[SmallTriton, grpc.Server, int]],
) -> None:
    with (
        # A probe's first answer is three pieces away (settings, question, answer): 7.5 s at most of the 8 it has.
        slow_proxy(servers[0][2], 2.0, 0.5) as port,
        closing(LoadBalancer(f"grpc://127.0.0.1:{port}", lambda url: TritonBackend(url, 20))) as replicas,
        ThreadPoolExecutor(9) as pool,
        capture_logs() as logs,
    ):
        is_ready = pool.submit(replicas.models_ready)
        answers = [pool.submit(answer, replicas) for _ in range(8)]
        assert all(pending.result(30)[-1].finish == Finish.STOP for pending in answers)
        assert is_ready.result(30)
        assert replicas.has_another() and logs == []
