"""Several answers to one request: the prompt is read once, each answer has the next seed, and there is one end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_rig import Receiver
from fake_decoder import FakeSession

from gateway.triton.backend import GenerateRequest
from gateway.triton.tensors import chunk_of, outputs_of, tensors_of
from glmserve import contract
from glmserve.answer_rules import AnswerRules, TextRule
from glmserve.contract import Finish
from glmserve.engine.answer_group import AnswerGroup
from glmserve.engine.engine import Engine
from glmserve.engine.grammars.compiler import GrammarCompiler
from glmserve.engine.preprocessor import Preprocessor, salted
from glmserve.engine.request import Done, Ended, Event, Failed, Logprobs, Timings, Tokens
from glmserve.engine.scheduler.wait_queue import WaitQueue
from glmserve.engine.triton.tensors import message
from glmserve.engine.triton.whole_response import joined
from glmserve.engine.vision.encode_queue import EncodeQueue, FeatureCache
from glmserve.engine.vision.sessions import one_by_one
from glmserve.errors import GlmServeError
from glmserve.model.config import Checkpoint
from glmserve.sampling_parameters import Sampling

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
CHECKPOINT = Checkpoint.read(DEMO)
PROMPT = list(range(300, 340))
pytestmark = pytest.mark.process  # grammars are tried in a process of their own


class Rig:
    def __init__(self) -> None:
        self.session = FakeSession(rows=4, context=256, vocabulary=CHECKPOINT.text.vocabulary, broken=399)
        self.engine = Engine(self.session, CHECKPOINT.eos_token_ids, slots=3, wait_queue=WaitQueue(6, 10_000, slots=3))
        self.engine.start()
        self.grammars = GrammarCompiler(DEMO / "tokenizer.json", CHECKPOINT.text.vocabulary, CHECKPOINT.eos_token_ids)
        encode = one_by_one(lambda _: np.empty(0, np.float32))
        images = EncodeQueue(encode, FeatureCache(1 << 20, self.engine.meter), self.engine.meter)
        self.preprocessor = Preprocessor(CHECKPOINT, self.engine, images, self.grammars)

    def ask(
        self, answers: int, prompt: list[int] = PROMPT, salt: int = 0, grammar: bytes = b"", **sampling: object
    ) -> Receiver:
        receiver = Receiver()
        request = GenerateRequest(
            "x",
            np.array(prompt, np.int64),
            None,
            (),
            Sampling(**sampling),  # type: ignore[arg-type]
            10.0,
            grammar=grammar,
            cache_salt=salt,
            answers=answers,
        )
        tensors = {tensor.name: array for tensor, array in tensors_of(request)}
        self.preprocessor.accept(tensors, receiver, receiver.cancelled.is_set)
        return receiver

    def fed(self) -> int:
        """Prompt tokens that steps have read."""
        return sum(int(step.chunk_new.sum()) for step in self.session.steps)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.preprocessor.close()
    made.engine.stop()
    made.grammars.close()
    assert made.engine.wait_queue.requests == 0


def tokens_of(receiver: Receiver, number: int) -> list[int]:
    events = [event for event in receiver.events if isinstance(event, Tokens) and event.number == number]
    return [token for event in events for token in event.tokens]


@pytest.mark.parametrize("answers", [2, 3, 5])
def test_the_prompt_is_read_once_and_each_answer_is_whole(rig: Rig, answers: int) -> None:
    first = 60 * answers
    before = rig.fed()
    receiver = rig.ask(answers, [first + at for at in range(40)], max_tokens=6)
    done = receiver.wait()
    assert isinstance(done, Done) and done.finishes == (Finish.LENGTH,) * answers and done.cached_tokens == 0
    assert [tokens_of(receiver, number) for number in range(answers)] == [list(range(first + 40, first + 46))] * answers
    assert rig.fed() - before == 40 + answers - 1, "the prompt was read more than once"


def test_one_answer_has_no_number(rig: Rig) -> None:
    receiver = rig.ask(1, max_tokens=3)
    assert receiver.finish is Finish.LENGTH
    assert all(event.number is None for event in receiver.events if isinstance(event, Tokens))


def test_answers_differ_by_their_seeds(rig: Rig) -> None:
    before = len(rig.session.steps)
    rig.ask(3, max_tokens=4, temperature=1.0, seed=2**63 - 2).wait()
    together = {row.tobytes() for step in rig.session.steps[before:] for row in step.sampler.uniform}
    alone = set()
    for seed in (2**63 - 2, 2**63 - 1, -(2**63)):
        before = len(rig.session.steps)
        rig.ask(1, max_tokens=4, temperature=1.0, seed=seed).wait()
        alone |= {row.tobytes() for step in rig.session.steps[before:] for row in step.sampler.uniform}
    assert together == alone and len(alone) == 12


def test_one_failure_is_the_end_of_them_all(rig: Rig) -> None:
    receiver = rig.ask(3, [*range(360, 395)], max_tokens=20)  # token 399 breaks
    assert receiver.code == "numeric_fault"
    again = rig.ask(1, max_tokens=3)  # and nothing of theirs is left
    assert again.finish is Finish.LENGTH


def test_more_answers_than_places_are_refused_and_leave_nothing(rig: Rig) -> None:
    """Three slots and six places to wait in: to come back later would not help."""
    assert rig.ask(10, max_tokens=3).code == rig.ask(17, max_tokens=3).code == "invalid_input"
    assert rig.engine.wait_queue.requests == 0
    for answers in (5, 9):
        assert isinstance(rig.ask(answers, max_tokens=3).wait(), Done)


def test_each_answer_has_a_grammar_of_its_own(rig: Rig) -> None:
    empty = AnswerRules(TextRule("json_schema", {"type": "object", "additionalProperties": False}, "response_format"))
    receiver = rig.ask(3, max_tokens=12, grammar=empty.packed())
    done = receiver.wait()
    assert isinstance(done, Done)
    texts = [tokens_of(receiver, number) for number in range(3)]
    assert texts[0] and texts[0] == texts[1] == texts[2]


def test_a_salt_keeps_caches_apart(rig: Rig) -> None:
    prompt = [*range(500, 540)]
    found = [
        done.cached_tokens
        for salt in (0, 0, 7, 7, 8)
        if isinstance(done := rig.ask(1, prompt, salt=salt, max_tokens=2).wait(), Done)
    ]
    assert found[0] == found[2] == found[4] == 0 and found[1] == found[3] == 39
    assert salted(5, 0) == 5 and len({salted(scope, salt) for scope in (0, 5) for salt in (1, 2)}) == 4


def events_of(*events: tuple[int, Event]) -> list[Event]:
    """What a group of two makes of its answers' events."""
    emitted: list[Event] = []
    group = AnswerGroup(emitted.append, 2)
    for number, event in events:
        group.receiver(number)(event)
    return emitted


def test_a_group_tells_which_answers_have_ended() -> None:
    end = Done(Finish.STOP, Timings(), 4)
    found = events_of((0, Tokens([1])), (1, Tokens([2])), (1, Done(Finish.LENGTH, Timings(), 39)), (0, end))
    assert found == [
        Tokens([1], number=0),
        Tokens([2], number=1),
        Ended((Finish.RUNNING, Finish.LENGTH)),
        Done(Finish.STOP, Timings(), 4, (Finish.STOP, Finish.LENGTH)),
    ]
    failed = Failed(GlmServeError())
    assert events_of((1, failed), (0, Tokens([1])), (0, end)) == [failed]


def test_a_group_tells_which_stop_token_ended_which_answer() -> None:
    by_token = Done(Finish.STOP, Timings(), 4, stop_tokens=(12,))
    end = events_of((1, by_token), (0, Done(Finish.STOP, Timings(), 4)))[-1]
    assert isinstance(end, Done) and end.stop_tokens == (-1, 12)
    assert chunk_of(message([end])).stop_tokens == (-1, 12)


def test_what_a_group_emits_arrives_at_the_gateway() -> None:
    def ranked(token: int) -> Logprobs:
        return Logprobs(np.array([[token]]), np.array([[-1.0]], np.float32))

    events = events_of(
        (0, Tokens([1, 3], Logprobs(np.array([[1], [3]]), np.zeros((2, 1), np.float32)))),
        (1, Tokens([2], ranked(2))),
        (1, Done(Finish.LENGTH, Timings())),
        (0, Tokens([5], ranked(5))),
        (0, Done(Finish.STOP, Timings(), 4)),
    )
    early, last, whole = (chunk_of(message(part)) for part in (events[:3], events[3:], events))
    assert (early.tokens, early.choices, early.finish) == ((1, 3, 2), (0, 0, 1), Finish.RUNNING)
    assert early.finishes == (Finish.RUNNING, Finish.LENGTH) and len(early.logprobs) == 3
    assert (last.tokens, last.choices, last.cached_tokens) == ((5,), (0,), 4)
    assert last.finishes == whole.finishes == (Finish.STOP, Finish.LENGTH)
    assert (whole.tokens, whole.choices) == ((1, 3, 2, 5), (0, 0, 1, 0))
    assert chunk_of(joined([message(events[:3]), message(events[3:])])) == whole


def test_the_gateway_wants_numbers_only_where_there_are_several() -> None:
    one, two = (GenerateRequest("x", np.ones(1, np.int64), None, (), Sampling(), 1.0, answers=n) for n in (1, 2))
    assert contract.CHOICES in outputs_of(two) and contract.CHOICES not in outputs_of(one)
    assert contract.ANSWERS not in [tensor for tensor, _ in tensors_of(one)]
