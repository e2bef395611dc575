"""What all tests share: their markers, the builds they read, turns between processes, and how hard Hypothesis tries."""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.expression import Expression
from hypothesis import settings
from kinds import LONGEST_GROUPS, SIGNS, TESTS, group_of_test, kinds_of_test, read_all, tests_in
from turns import Turns

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the tests start Python a hundred times: compile once
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # of torch, whose threads spin while they wait: 20 s of processor time for 5

gc.disable()  # until the tests are collected: of all that is made while importing nothing is ever given back


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


settings.register_profile("ci", max_examples=250, deadline=None, derandomize=False, print_blob=True)
settings.register_profile("dev", max_examples=25, deadline=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


PROGRAMS: list[str] = []
"""The programs that the running test has started."""
SHARED = {"gateway.images.decoder_process", "gateway.reading.process"}
"""All tests of a gateway share a few of these, which start in a tenth of a second, or in half of one."""


def _note_program(event: str, found: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and SHARED.isdisjoint(found[1]):
        PROGRAMS.append(str(found[0]))


sys.addaudithook(_note_program)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out, before it is imported, a file of which `-m` takes no test: torch alone takes seconds."""
    wanted = config.option.markexpr
    is_of_kinds = set(re.findall(r"\w+", wanted)) - {"not", "or", "and"} <= SIGNS.keys()
    if not wanted or not is_of_kinds or not collection_path.match("test_*.py"):
        return None
    takes = Expression.compile(wanted).evaluate
    kinds = [kinds_of_test(collection_path, name) for name in tests_in(collection_path)]
    return None if any(takes(lambda name, has=has, **_: name in has) for has in kinds) else True


def pytest_itemcollected(item: pytest.Item) -> None:
    for kind in kinds_of_test(*_place(item.nodeid)):
        item.add_marker(kind)


def _place(nodeid: str) -> tuple[Path, str]:
    """A test's file and the name it has there."""
    path, name = nodeid.split("::")[:2]
    return TESTS.parent / path, name.partition("[")[0]


def pytest_configure(config: pytest.Config) -> None:
    """Before xdist starts its processes, each of which would otherwise read all sources."""
    if getattr(config.option, "numprocesses", None):
        read_all()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process runs all tests of a group. (xdist's own `loadgroup` does nothing under pytest 9.)"""
    if config.option.dist != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of_test(*_place(nodeid))

    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that run alone begin, while no other test must be waited for; then what takes longest, so that no process
    waits for another's last group."""
    with_alone = {group_of_test(*_place(item.nodeid)) for item in items if _is_alone(item)}

    def place(item: pytest.Item) -> tuple[bool, bool, int, bool, bool]:
        is_first, is_triton = group_of_test(*_place(item.nodeid)) in with_alone, bool(item.get_closest_marker("triton"))
        if is_first:  # by then others have read what a Triton is made of from the disk
            return False, not _is_alone(item), 0, is_triton, False
        return True, False, _rank(item), not is_triton, not _needs_something(item)

    items.sort(key=place)


def _rank(item: pytest.Item) -> int:
    group = group_of_test(*_place(item.nodeid))
    return next((rank for rank, longest in enumerate(LONGEST_GROUPS) if group.endswith(longest)), len(LONGEST_GROUPS))


def _needs_something(item: pytest.Item) -> bool:
    return any(map(item.get_closest_marker, SIGNS))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Lets a test that measures run alone, whatever the other processes of this run do."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return (yield)
    with _turns(run).turn(_is_alone(item), keeps=nextitem is not None and _is_alone(nextitem)):
        return (yield)


@cache
def _turns(run: str) -> Turns:
    return Turns(Path(tempfile.gettempdir()) / f"turns-{run}")


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.fixture(autouse=True)
def only_marked_tests_start_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """So that `make test-fast` stays fast: `tests/support/kinds.py` must know why this test is slow."""
    PROGRAMS.clear()
    yield
    started = set(PROGRAMS) - {"lscpu"}  # numpy.testing's, while it is imported
    assert _needs_something(request.node) or not started, f"not marked `process`, and started {started}"


FAST_S = 0.3
"""The processor time that a test without a marker may take; what takes longer is marked `slow`."""
MOST_S = 20 * FAST_S
"""Fails: so much is neither a slow and busy machine nor a package that is imported for the first time."""
OVER_BUDGET: list[str] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    began_s = time.process_time()
    result = yield
    taken_s = time.process_time() - began_s
    if not _needs_something(item):
        item.user_properties.append(("cpu_s", taken_s))
        assert taken_s < MOST_S, f"took {taken_s:.1f} s of processor time: mark it `slow`, or make it cheaper"
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    taken_s = float(dict(report.user_properties).get("cpu_s", 0))  # type: ignore[arg-type]
    if report.when == "call" and taken_s > FAST_S:
        OVER_BUDGET.append(f"{taken_s:.2f} s  {report.nodeid}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if OVER_BUDGET and "PYTEST_XDIST_WORKER" not in os.environ:
        terminalreporter.section(f"more than {FAST_S} s of processor time, and not marked `slow`")
        terminalreporter.write_line("\n".join(sorted(OVER_BUDGET, reverse=True)))


@pytest.fixture(scope="session")
def demo_build() -> Path:
    """The demo in fp32, shared by all tests: whoever alters it takes a copy."""
    from shared_builds import build_of_demo

    return build_of_demo()
