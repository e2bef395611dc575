"""Three Tritons and two gateways: what they add up to, and what is lost when one dies or a new build goes out."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.checkpoints.builds import CACHE
from bench.harness import Run
from bench.load.closed_loop import Reply
from bench.load.prompts import Question, QuestionMaker
from bench.load.steady import LONG, SteadyLoad, longest_silence_s, steady_load, tally
from bench.records import Row
from bench.servers.fleet import Fleet, fleet_of, kill
from bench.servers.paced_engine import Pace
from bench.servers.stub_build import write_stub_build
from bench.simulation.step_times import StepTimes
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.model.tokenizer import Tokenizer
from launcher.gateway_server import GatewayServer
from launcher.triton_server import TritonServer

TIMES = StepTimes(decode_s=0.05, row_s=0.0, prefill_s=0.005, token_s=0.0001)
"""A decode step as a GPU might have it: most of an answer is waiting, which two cores can do for many."""
CLIENTS = 24
"""As many as three Tritons have slots."""
_TRITONS, _GATEWAYS = 3, 2
_CROWD = 12  # clients for each Triton: more than it has slots, so that none is ever empty
_IMAGE = (112, 112)
_SETTLE_S = 3.0
_WINDOW_S = 5.0
_WATCH_S = 2.0
_SHARE_S = 4.0
_RETURN_WITHIN_S = 20.0
_ROLLED = 2000
_ROLL_WITHIN_S = 120.0
_POLL_S = 0.05
_BEGUN_ANEW = "answer_begun_anew"


def measure(run: Run) -> list[Row]:
    """One row with all figures; no load lasts longer than about a minute."""
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="replicas-", dir=CACHE) as name:
        folder = Path(name)
        old, new = (write_stub_build(folder, Pace(TIMES, letter)) for letter in "ab")
        question = question_of(old)
        run.say(f"Starting {_TRITONS} Tritons, and one beside them ...")
        with fleet_of(folder / "fleet", old, _TRITONS, _GATEWAYS) as fleet:
            with fleet_of(folder / "alone", old, 1, _GATEWAYS) as alone:

                def one_round(_number: int) -> dict[str, float]:
                    return {"throughput_ratio": _tokens_per_s(fleet, question) / _tokens_per_s(alone, question)}

                row: Row = {"tritons": _TRITONS, "gateways": _GATEWAYS, **run.spreads("Throughput", one_round)}
            with steady_load(fleet.url, question, CLIENTS) as load:
                time.sleep(_SETTLE_S)
                row |= triton_death(fleet, load)
                row |= triton_return(fleet, old)
                row |= gateway_death(fleet, load)
            row["steady_requests"] = len(load.endings)
            fleet.revive_gateway(0, old)
            row |= roll(fleet, question, new, _ROLLED)
        run.say(f"Deaths, a return and a new build: {row}")
        return [row]


def question_of(build: Path) -> Question:
    """What every client asks about a small image."""
    return QuestionMaker(Tokenizer.read(build / CHECKPOINT_FOLDER), seed=0).question(_IMAGE, prompt_tokens=12)


def triton_death(fleet: Fleet, load: SteadyLoad) -> Row:
    """Kills the first Triton under load: the longest silence, and how its requests ended."""
    retried_before = fleet.gateway_logs().count(_BEGUN_ANEW)
    endings, silence_s = _watch_death(fleet.tritons[0], load)
    return {
        "triton_death_silence_s": silence_s,
        "triton_death_retried": fleet.gateway_logs().count(_BEGUN_ANEW) - retried_before,
        "triton_death_error_events": tally(endings)["error event"],
        "triton_death_lost": sum(ending.is_lost for ending in endings),
    }


def triton_return(fleet: Fleet, build: Path) -> Row:
    """Brings the first Triton back under load: the time to its first new tokens, and its share of those that follow."""
    fleet.revive_triton(0, build)
    back = time.monotonic()
    while not fleet.tokens(0):
        if time.monotonic() > back + _RETURN_WITHIN_S:
            raise TimeoutError("the Triton that returned was left idle")
        time.sleep(_POLL_S)
    spread_s = time.monotonic() - back
    before = [fleet.tokens(number) for number in range(len(fleet.tritons))]
    time.sleep(_SHARE_S)
    gained = [fleet.tokens(number) - earlier for number, earlier in enumerate(before)]
    return {"spread_s": round(spread_s, 3), "returned_share": round(gained[0] / sum(gained), 3)}


def gateway_death(fleet: Fleet, load: SteadyLoad) -> Row:
    """Kills the first gateway under load; its streams are cut short, since nothing is left to end them."""
    endings, silence_s = _watch_death(fleet.gateways[0], load)
    cut = sum(ending.how == "cut" and ending.words > 0 for ending in endings)
    return {
        "gateway_death_silence_s": silence_s,
        "gateway_death_cut_streams": cut,
        "gateway_death_lost": sum(ending.is_lost for ending in endings) - cut,
    }


def roll(fleet: Fleet, question: Question, build: Path, requests: int) -> Row:
    """Takes one Triton after another, then each gateway to a new build, under load, for at least so many requests."""
    with steady_load(fleet.url, question, CLIENTS) as load:
        began = time.monotonic()
        for number in range(len(fleet.tritons)):
            fleet.revive_triton(number, build)
        for number in range(len(fleet.gateways)):
            fleet.revive_gateway(number, build)
        rolled = time.monotonic()
        load.wait_for(requests, _ROLL_WITHIN_S)
    endings = load.endings
    late = [ending for ending in endings if ending.began > rolled]
    return {
        "rolled_requests": len(endings),
        "rolled_failed": sum(ending.how != "done" for ending in endings),
        "rolled_endings": dict(tally(endings)),
        "rolled_silence_s": round(longest_silence_s(endings, began, rolled), 3),
        "rolled_letters": sorted({ending.text[:1] for ending in late} - {""}),
    }


def _watch_death(server: TritonServer | GatewayServer, load: SteadyLoad) -> tuple[list[Reply], float]:
    """Kills a server: what ended in the seconds after, and the longest time without any answer."""
    before, killed = len(load.endings), time.monotonic()
    kill(server)
    time.sleep(_WATCH_S)
    endings = load.endings[before:]
    return endings, round(longest_silence_s(endings, killed, killed + _WATCH_S), 3)


def _tokens_per_s(fleet: Fleet, question: Question) -> float:
    """Tokens a second that the Tritons hand out to more clients than they have slots."""
    numbers, counted = range(len(fleet.tritons)), []
    with steady_load(fleet.url, question, _CROWD * len(numbers), LONG) as load:
        for wait_s in (_SETTLE_S, _WINDOW_S):
            time.sleep(wait_s)
            counted.append((sum(fleet.tokens(number) for number in numbers), time.monotonic()))
    assert set(tally(load.endings)) == {"done"}
    (fewer, began), (more, ended) = counted
    return (more - fewer) / (ended - began)
