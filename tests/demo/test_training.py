"""Training computes what transformers computes, shares a step truly, and begins from earlier weights token by token."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from demo import forward
from demo.batches import Encoder, Packed, Row, images_of, pack
from demo.crew import Crew
from demo.curriculum import MAKERS, random_batch
from demo.exam import Asked, unseen, unseen_scene
from demo.forward import read, see
from demo.golden_set import CHECKPOINT
from demo.lessons.chats import chat_pieces
from demo.model import new_model, start_from
from demo.muon import orthogonal_all
from demo.reference import Reference
from demo.train import Trainer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.set_num_threads(1)
    return Reference(CHECKPOINT)


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(forward, "HALF", torch.float32)
    yield


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("kind", ["describe", "json", "turns", "pair", "video", "tool", "result", "greeting"])
def test_a_lesson_is_read_as_transformers_reads_it(kind: str, reference: Reference, tokenizer: Tokenizer) -> None:
    asked = next(asked for asked in unseen(60, (kind,)) if _needs_no_resize(asked))
    packed, features = _packed(asked, reference, tokenizer)
    found = reference.answer(
        asked.messages, asked.pictures, asked.thinking, asked.shared.tools, asked.shared.times, most_tokens=1
    )
    assert packed.ids[0, : len(found.input_ids)].tolist() == found.input_ids
    logits = reference.model.lm_head(read(reference.model, packed, features))
    first = (packed.owners == packed.owners.max()).nonzero()[0, 0]
    assert torch.allclose(logits[first], found.logits[0], atol=2e-3)


@pytest.mark.parametrize("kind", MAKERS)
def test_no_chat_of_a_row_sees_another(kind: str, tokenizer: Tokenizer) -> None:
    packed, _ = random_batch(random.Random(1), Encoder(tokenizer), kind)
    seen = packed.mask[:, 0]
    assert not torch.triu(seen, diagonal=1).any(), "nothing sees what comes later"
    assert torch.equal(seen & seen.transpose(1, 2), torch.eye(seen.shape[1], dtype=torch.bool) & seen)
    assert len(packed.targets) == len(packed.weights) == len(packed.owners)
    assert packed.owners.max() + 1 == len(packed.kinds)


def test_two_processes_learn_what_one_does(tokenizer: Tokenizer, tmp_path: Path) -> None:
    parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
    crew = Crew(1, parameters)

    def share(worker: int, step: int) -> dict[str, list[float]]:
        parameters[0].grad = torch.full((3,), float(worker))
        parameters[1].grad = None
        return {"note": [float(step)]}

    crew.start(share)
    crew.begin(7)
    parameters[0].grad, parameters[1].grad = torch.ones(3), torch.ones(2, 2)
    assert crew.gather(parameters) == {"note": [7.0]}
    assert parameters[0].grad.tolist() == [2.0] * 3
    assert parameters[1].grad.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_a_stopped_training_goes_on_where_it_was(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    trainer = Trainer(tmp_path, tokenizer, seed=0)
    trainer.step(1e-3)
    trainer.save()
    trainer.step(1e-3)
    again = Trainer(tmp_path, tokenizer, seed=1)
    again.seed = 0
    again.resume()
    again.step(1e-3)
    for one, other in zip(trainer.parameters, again.parameters, strict=True):
        assert torch.equal(one, other)


def test_the_rate_falls_to_nothing_in_the_steps_that_were_asked_for(tokenizer: Tokenizer, tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, tokenizer, seed=0)
    trainer.progress.step = trainer.progress.decay_from = 1000
    steady = trainer.rate(0)
    assert trainer.rate(50) == steady
    trainer.progress.step = 1025
    assert trainer.rate(50) == pytest.approx(steady / 2)


def test_weights_of_an_earlier_demo_are_taken_over_token_by_token(tokenizer: Tokenizer) -> None:
    earlier = Reference(CHECKPOINT).model.state_dict()
    model = new_model(tokenizer, seed=3)
    start_from(model, tokenizer, CHECKPOINT)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, earlier[name]), name


def test_matrices_become_nearly_orthogonal_together() -> None:
    torch.manual_seed(0)
    for found in orthogonal_all([torch.randn(8, 20), torch.randn(20, 8), torch.randn(8, 20)]):
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.5 and values.max() < 1.4


def _needs_no_resize(asked: Asked) -> bool:
    return len({image.size for image in asked.pictures}) <= 1


def _packed(asked: Asked, reference: Reference, tokenizer: Tokenizer) -> tuple[Packed, torch.Tensor | None]:
    pictures = asked.pictures
    step = 2 if asked.shared.times else 1
    frames = [pictures[i : i + step] for i in range(0, len(pictures), step)]
    images = images_of(frames, [unseen_scene(0)] * len(frames), [[]] * len(frames)) if frames else None
    row = Row(asked.shared.pieces(), [chat_pieces(asked.chat)], range(len(frames)))
    packed = pack(Encoder(tokenizer), [row], images.grid if images else None)
    return packed, see(reference.model, images.patches, images.grid) if images else None
