"""Random faults under load for some minutes, and whether the history of all requests may have been so.

`make chaos MINUTES=15 SEED=1`, or with LAUNCHER=1 for the service under its launcher. Only processes that this program
has started are signalled, all on loopback. Exit code 0 when the checker finds nothing and every fault was over in time.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median

from clients import Client, Recorder, questions
from history import Ended, Event, How, Rule, Sent, Terms, Violation, check, compare_levels, tally
from injector import FAULTS, Fault, Injector, Struck, under_the_launcher
from proxy import Proxy, at_random
from service import READY_S, LaunchedService, Service, settle
from shared_builds import build_of_demo
from sidecars import Nginx, Redis
from slow_build import write_slow_build

BACK_WITHIN_S = 15.0
STEP_S = 0.03
CALM_S = (2.0, 7.0)
"""Between the end of one fault and the next."""
WARM_UP_S = 15.0
CUT_SHARE, CUT_MOST_BYTES = 0.3, 6000
SLACK = {
    "tritonserver threads": 16,
    "tritonserver files": 24,
    "stub of glm4v threads": 4,
    "stub of glm4v files": 4,
    "stub of glm4v_whole threads": 4,
    "stub of glm4v_whole files": 4,
    "gateway worker threads": 24,
    "gateway worker files": 40,
    "supervisor files": 2,
    "supervisor threads": 1,
    "gunicorn master files": 6,
}
"""Pools grow to what a moment asks for; a leak grows with every fault."""


class Chaos:
    """One run: a service, clients on four ways to it, and one fault after another."""

    def __init__(self, folder: Path, seed: int, clients: int, chosen: list[Fault], has_launcher: bool) -> None:
        self._chance, self._chosen = random.Random(seed), chosen
        self._recorder, self._stopping = Recorder(), threading.Event()
        self._redis = Redis(folder) if Redis.is_installed() else None
        build = write_slow_build(build_of_demo(), folder, STEP_S)
        kind = LaunchedService if has_launcher else Service
        self.service = kind(folder, build, self._redis.url if self._redis else "")
        self._to_triton = Proxy(self.service.grpc_port)
        self.service.triton_url = f"grpc://127.0.0.1:{self._to_triton.port}"
        self._cutting = Proxy(self.service.web_port, at_random(seed, CUT_SHARE, CUT_MOST_BYTES))
        self._nginx = Nginx(folder, self.service.web_port) if Nginx.is_installed() else None
        self._struck: list[Struck] = []
        self._revived: Counter[str] = Counter()
        self._regions: set[str] = set()
        ways = {"direct": self.service.url, "cut": f"http://127.0.0.1:{self._cutting.port}"}
        if self._nginx is not None:
            ways["nginx"] = self._nginx.url
        names = [(way, f"{way}-{number}") for number, way in zip(range(clients), _endless(list(ways)), strict=False)]
        self._clients = [Client(name, ways[way], self._recorder, seed) for way, name in names]
        self._breaking = frozenset(name for way, name in names if way == "cut")
        self.injector = Injector(
            self.service, self._to_triton, self._redis, self._nginx, self._chance, faults_of(has_launcher)
        )

    def run(self, minutes: float) -> list[Violation]:
        threads = [threading.Thread(target=client.run, args=(self._stopping,), daemon=True) for client in self._clients]
        try:
            self._start()
            for thread in threads:
                thread.start()
            self._watch(WARM_UP_S)
            before = self.service.levels()
            end = time.monotonic() + 60 * minutes
            while time.monotonic() < end:
                self._strike()
                self._watch(self._chance.uniform(*CALM_S))
            self._stopping.set()
            for thread in threads:
                thread.join(60)
            self.service.wait_ready()
            settle(self.service)
            after = self.service.levels()
        finally:
            self._stopping.set()
            self._stop()
        before |= {name: 0.0 for name in before if name.startswith("glm_")}  # a load ran then, and none does now
        found = check(self._recorder.events, self._terms())
        return [*found, *compare_levels(before, after, SLACK), *self._left_behind(), *self._slow()]

    def report(self) -> str:
        """A table of the faults and how long the service took to answer again."""
        lines = [f"{'fault':42} {'times':>5} {'median s':>9} {'worst s':>8}  requests that ended otherwise"]
        by_name: dict[str, list[Struck]] = defaultdict(list)
        for struck in self._struck:
            by_name[struck.fault.name].append(struck)
        for name, struck_so in sorted(by_name.items()):
            times = [self._recovery_s(struck) for struck in struck_so]
            ended = sum((self._ended_otherwise(struck) for struck in struck_so), Counter[str]())
            words = ", ".join(f"{count} {how}" for how, count in sorted(ended.items())) or "none"
            lines.append(f"{name:42} {len(times):5} {median(times):9.1f} {max(times):8.1f}  {words}")
        lines.append(
            f"all requests: {', '.join(f'{n} {how}' for how, n in tally(self._recorder.events).most_common())}"
        )
        lines.append(f"started again by us: {dict(self._revived) or 'nothing'}")
        return "\n".join(lines)

    def _start(self) -> None:
        self.service.start()
        if self._nginx is not None:
            self._nginx.start()
        if self._redis is not None:
            self._redis.start()
        self.service.wait_ready()
        say(f"ready; {len(self._clients)} clients ask {len(questions())} questions")

    def _stop(self) -> None:
        self._regions |= self.service.regions()
        for proxy in (self._cutting, self._to_triton):
            proxy.close()
        for sidecar in (self._nginx, self._redis):
            if sidecar is not None:
                sidecar.stop()
        self.service.stop()

    def _strike(self) -> None:
        """One fault, until the service answers again, and in any case until the fault is over."""
        self._regions |= self.service.regions()
        fault = self._chance.choice(self._chosen)
        struck = self.injector.strike(fault)
        if struck is None:
            return
        self._struck.append(struck)
        give_up = struck.at_s + fault.lasts_s + READY_S
        while not (self.injector.is_over(struck) and self._answers_since(struck.at_s)) and time.monotonic() < give_up:
            self._watch(0.2)
        struck.until_s = time.monotonic()
        ended = dict(self._ended_otherwise(struck)) or "nobody noticed"
        say(f"{struck.fault.name}: {self._recovery_s(struck):.1f} s; {ended}")

    def _watch(self, for_s: float) -> None:
        """Lets time pass, and starts again what has ended, as a container runtime would."""
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            self._revived.update(self.service.revive())
            for sidecar in (self._nginx, self._redis):
                if sidecar is not None and sidecar.revive():
                    self._revived[sidecar.name] += 1
            time.sleep(0.1)

    def _answers_since(self, since_s: float) -> bool:
        """Whether three answers have come to requests that were sent after this, and after the last that failed."""
        events = list(self._recorder.events)  # clients add to them meanwhile
        done, sent = 0, _sent_at(events)
        for event in reversed(events):
            if isinstance(event, Ended) and event.how not in (How.LEFT,) and not self._is_cut(event.request_id):
                if event.how is not How.DONE or sent[event.request_id] < since_s:
                    return False
                done += 1
                if done == 3:
                    return True
        return False

    def _recovery_s(self, struck: Struck) -> float:
        """Until the first answer to a request sent after the last one that failed; 0 when none failed or waited."""
        events = list(self._recorder.events)
        sent = _sent_at(events)
        ours = [
            end
            for end in events
            if isinstance(end, Ended) and struck.at_s <= sent[end.request_id] <= struck.until_s
            if end.how is not How.LEFT and not self._is_cut(end.request_id)
        ]
        failed = [sent[end.request_id] for end in ours if end.how is not How.DONE]
        since = max(failed, default=struck.at_s)
        ends = (
            end for end in events if isinstance(end, Ended) and end.how is How.DONE and not self._is_cut(end.request_id)
        )
        answered = [end.at_s for end in ends if sent[end.request_id] >= since]  # also after the window
        return min(answered, default=time.monotonic()) - struck.at_s

    def _ended_otherwise(self, struck: Struck) -> Counter[str]:
        ends = [
            end
            for end in self._recorder.events
            if isinstance(end, Ended)
            and struck.at_s <= end.at_s <= struck.until_s
            and end.how not in (How.DONE, How.LEFT)
            and not self._is_cut(end.request_id)
        ]
        return tally(ends)

    def _is_cut(self, request_id: str) -> bool:
        return request_id.startswith("cut-")

    def _terms(self) -> Terms:
        """Connections may break while a process that clients talk to is killed, and until there is another."""
        breaks = tuple((struck.at_s - 0.5, struck.until_s + 1.0) for struck in self._struck if struck.fault.breaks)
        freezes = tuple((s.at_s, s.at_s + s.fault.lasts_s) for s in self._struck if s.fault.freezes_clients)
        return Terms(breaks, freezes, breaking_clients=self._breaking)

    def _left_behind(self) -> list[Violation]:
        """What is still there once all has ended."""
        regions = [name for name in self._regions if (Path("/dev/shm") / name).exists()]
        left = [*regions, *self.service.folders(), *self.service.orphans()]
        return [Violation(Rule.LEVEL, "after the end", name) for name in left]

    def _slow(self) -> list[Violation]:
        found = []
        for struck in self._struck:
            seconds = self._recovery_s(struck)
            if seconds > BACK_WITHIN_S + struck.fault.allowed_s:
                found.append(Violation(Rule.IN_TIME, struck.fault.name, f"back after {seconds:.1f} s"))
        return found


def faults_of(has_launcher: bool) -> tuple[Fault, ...]:
    return under_the_launcher() if has_launcher else FAULTS


def say(text: str) -> None:
    print(f"[{time.monotonic() - _BEGAN:5.0f} s] {text}", flush=True)


def _sent_at(events: list[Event]) -> dict[str, float]:
    return {event.request_id: event.at_s for event in events if isinstance(event, Sent)}


def _endless(items: list[str]) -> list[str]:
    """The ways in turn, the direct one twice as often."""
    return (["direct", *items] * 100)[:400]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--launcher", action="store_true", help="run what `make serve` runs, in place of containers")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    chosen = [fault for fault in faults_of(arguments.launcher) if arguments.only in fault.name]
    if not chosen or not 0 < arguments.minutes <= 240 or not 0 < arguments.clients <= 60:
        parser.error("--only must name a fault, --minutes lie in (0, 240], --clients in 1..60")
    say(f"seed {seed}, {arguments.minutes:g} minutes")
    folder = Path(tempfile.mkdtemp(prefix="glm-chaos-"))
    chaos = Chaos(folder, seed, arguments.clients, chosen, arguments.launcher)
    violations = chaos.run(arguments.minutes)
    print(chaos.report())
    for violation in violations:
        print(violation)
    print(f"{len(violations)} violations; seed {seed}" + (f"; the logs lie in {folder}" if violations else ""))
    if not violations:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if violations else 0


_BEGAN = time.monotonic()
if __name__ == "__main__":
    sys.exit(main())
