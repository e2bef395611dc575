"""Train the demo checkpoint on a CPU: `python -m demo.train eyes|words --out DIR [--resume] [--decay-steps N]`.

First the eyes alone, by a throwaway head that says what each picture token shows and where; then the words, with the
eyes as they are: pictures then cost a third, and what was learnt to see stays.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from demo.batches import LABELS, Encoder, Images
from demo.crew import Crew
from demo.curriculum import crowded_images, film_images, random_batch
from demo.forward import read, see
from demo.model import new_model, save_model, start_from, token_id
from demo.muon import Matrix, Muon
from demo.pictures.lettering import use_more_fonts
from demo.vocabulary import COORDINATES

RATE = 8e-4  # of the matrices; everything else learns twice as fast
WARM_UP_STEPS = 40
LESSONS, EYE_BATCHES, VISION_IMAGES = 1, 6, 8  # batches of lessons; for the eyes, batches and pictures in each
HELPER_WEIGHTS = {"name": 2.0, "colour": 1.0, "place": 0.7, "background": 0.5}
BOX_WEIGHT = 6.0
OFF_WEIGHT = 2.0  # of a box's sides, in parts of its size
LEAST_SIDE = 0.03
SIDE_WEIGHT = 20.0  # of how far off a side is that is said, beside whether it is the right one
EMPTY_WEIGHT = 0.2  # of a token that shows only background
SAVE_EVERY_S = 180.0
LOG_EVERY_STEPS = 10


class Helper(nn.Module):
    """The throwaway head: reads from each picture token what is there, so that the tower learns to see first."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.heads = nn.ModuleDict({name: nn.Linear(hidden_size, values) for name, values in LABELS.items()})
        self.box = nn.Linear(hidden_size, 4)

    def loss(self, features: torch.Tensor, images: Images) -> tuple[torch.Tensor, dict[str, float]]:
        x = self.norm(features)
        losses, right = [], {}
        shown = images.labels["name"] > 0
        weights = torch.where(shown, 1.0, EMPTY_WEIGHT).flatten()
        for name, head in self.heads.items():
            logits, labels = head(x), images.labels[name]
            each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            losses.append(HELPER_WEIGHTS[name] * (each * weights).sum() / weights.sum())
            right[name] = (logits.argmax(-1) == labels)[shown].float().mean().item()
        box_loss, boxes = _box_loss(self.box(x)[shown], images.boxes[shown])
        return torch.stack(losses).sum() + box_loss, right | boxes


def _box_loss(found: torch.Tensor, true: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """Of boxes [n, 4], and how they fare: the mean error of a side, and how many have an IoU of 0.7."""
    off = (found - true).abs()
    size = (true[:, 2:] - true[:, :2]).clamp(min=LEAST_SIDE)
    shared = torch.minimum(found[:, 2:], true[:, 2:]) - torch.maximum(found[:, :2], true[:, :2])
    both = shared.clamp(min=0).prod(-1)
    iou = both / (_area(found) + _area(true) - both + 1e-6)
    loss = BOX_WEIGHT * off.mean() + OFF_WEIGHT * (off / torch.cat([size, size], -1)).mean() + (1 - iou).mean()
    return loss, {"box": off.mean().item(), "iou": (iou > 0.7).float().mean().item()}


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)


@dataclass
class Progress:
    """How far training is; all that a resumed run must know besides the weights."""

    step: int = 0
    elapsed_s: float = 0.0
    decay_from: int = 0  # the step at which the rate began to fall; 0 as long as it does not
    right: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, name: str, value: float) -> None:
        self.right[name].append(value)

    def summary(self) -> str:
        means = {name: sum(values) / len(values) for name, values in sorted(self.right.items()) if values}
        self.right.clear()
        return " ".join(f"{name} {mean:.3f}" for name, mean in means.items())


class Trainer:
    """Owns the weights, the optimisers and the schedule: warm-up, a steady rate for as long as wanted, then a decay."""

    def __init__(
        self, out: Path, tokenizer: Tokenizer, seed: int, workers: int = 0, peak: float = RATE, eyes: bool = False
    ) -> None:
        """`peak` is the steady rate; either the `eyes` learn or the words."""
        self.peak, self.eyes = peak, eyes
        self.out, self.seed = out, seed
        self.tokenizer, self.encoder = tokenizer, Encoder(tokenizer)
        self.sides = [token_id(tokenizer, text) for text in COORDINATES]
        self.model = new_model(tokenizer, seed)
        self.helper = Helper(self.model.lm_head.in_features)
        tower = self.model.model.visual
        tower.requires_grad_(eyes)
        learns = tower if eyes else nn.ModuleList([self.model.model.language_model, self.model.lm_head])
        self.muon = Muon(_matrices(learns))
        mine = {id(matrix.weight) for matrix in self.muon.matrices}
        self.parameters = [*learns.parameters(), *(self.helper.parameters() if eyes else ())]
        rest = [p for p in self.parameters if id(p) not in mine]
        self.adam = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0)
        self.progress = Progress()
        self.crew = Crew(workers, self.parameters)

    def run(self, decay_steps: int = 0) -> None:
        """Train until stopped; with `decay_steps`, let the rate fall to nothing in them, then write the checkpoint."""
        self.crew.start(self.assist)
        started = time.monotonic() - self.progress.elapsed_s
        saved = time.monotonic()
        if not decay_steps:
            self.progress.decay_from = 0
        elif not self.progress.decay_from:
            self.progress.decay_from = self.progress.step
        while not decay_steps or self.progress.step < self.progress.decay_from + decay_steps:
            self.step(self.rate(decay_steps))
            self.progress.elapsed_s = time.monotonic() - started
            if self.progress.step % LOG_EVERY_STEPS == 0:
                self.log()
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()
        save_model(self.model, self.tokenizer, self.out)

    def assist(self, worker: int, step: int) -> dict[str, list[float]]:
        """A further process's share of a step; its gradients stay in its parameters."""
        for parameter in self.parameters:
            parameter.grad = None
        self.progress.step = step
        self.progress.right.clear()
        self.study(random.Random(f"{self.seed} {step} {worker}"))
        return dict(self.progress.right)

    def rate(self, decay_steps: int) -> float:
        step = self.progress.step
        rate = self.peak * min(1.0, (step + 1) / WARM_UP_STEPS)
        return rate * (1 - (step - self.progress.decay_from) / decay_steps) if decay_steps else rate

    def step(self, rate: float) -> None:
        self.crew.begin(self.progress.step)
        self.study(random.Random(f"{self.seed} {self.progress.step} 0"))
        for name, values in self.crew.gather(self.parameters).items():
            self.progress.right[name] += values
        for group in self.adam.param_groups:
            group["lr"] = 2 * rate
        self.adam.step()
        self.muon.step(rate)
        self.adam.zero_grad()
        self.muon.zero_grad()
        self.progress.step += 1

    def study(self, rng: random.Random) -> None:
        """One process's share of a step: gradients of its lessons."""
        share = 1 / (1 + self.crew.size)
        for number in range(EYE_BATCHES if self.eyes else LESSONS):
            if self.eyes:
                self.look(rng, share / EYE_BATCHES, has_films=not number)
            else:
                self.learn(rng, share / LESSONS)

    def look(self, rng: random.Random, weight: float, has_films: bool) -> None:
        """What pictures or films show, without a word."""
        images = film_images(rng, self.encoder) if has_films else crowded_images(rng, VISION_IMAGES)
        loss, right = self.helper.loss(see(self.model, images.patches, images.grid), images)
        _backward(loss * weight)
        kind = "film" if has_films else "see"
        for name, value in right.items():
            self.progress.note(f"{kind}-{name}", value)
        self.progress.note("~see-loss", loss.item())

    def learn(self, rng: random.Random, weight: float) -> None:
        """One batch of lessons."""
        packed, images = random_batch(rng, self.encoder)
        features = None
        if images is not None:
            with torch.no_grad():
                features = see(self.model, images.patches, images.grid)
        logits = self.model.lm_head(read(self.model, packed, features))
        losses = functional.cross_entropy(logits, packed.targets, reduction="none")
        losses = losses + SIDE_WEIGHT * self._off(logits, packed.targets)
        loss = (losses * packed.weights).sum() / len(packed.kinds)
        _backward(loss * weight)
        # Which answers would a greedy reader have got right to the letter?
        wrong = ((logits.argmax(-1) != packed.targets) & (packed.weights > 0)).long()
        mistakes = torch.zeros(len(packed.kinds), dtype=torch.long).index_add_(0, packed.owners, wrong)
        for kind, count in zip(packed.kinds, mistakes.tolist(), strict=True):
            self.progress.note(kind, float(count == 0))
        self.progress.note("~loss", loss.item())

    def _off(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """How far off sides of boxes are expected, in parts of the picture, f32 [n]; 0 for all that is no side."""
        first, last = self.sides[0], self.sides[-1] + 1  # their ids follow one another
        is_side = (targets >= first) & (targets < last)
        steps = torch.arange(1, 1 + len(self.sides)) / len(self.sides)
        expected = logits[:, first:last].float().softmax(-1) @ steps
        true = (targets - first + 1) / len(self.sides)
        return (expected - true).abs() * is_side

    def log(self) -> None:
        print(
            f"{time.strftime('%H:%M:%S')} step {self.progress.step} {self.progress.elapsed_s / 60:.1f} min "
            f"{self.progress.summary()}",
            flush=True,
        )

    def save(self) -> None:
        """Everything a resumed run needs, written beside and renamed."""
        state: dict[str, Any] = {
            "eyes": self.eyes,
            "model": self.model.state_dict(),
            "helper": self.helper.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "step": self.progress.step,
            "elapsed_s": self.progress.elapsed_s,
            "decay_from": self.progress.decay_from,
        }
        torch.save(state, self.out / "training.pt.new")
        (self.out / "training.pt.new").rename(self.out / "training.pt")

    def resume(self) -> None:
        """Goes on; what was written while the other half learnt gives its weights only."""
        state = torch.load(self.out / "training.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.helper.load_state_dict(state["helper"])
        if state.get("eyes") is self.eyes:
            self.muon.load_state_dict(state["muon"])
            self.adam.load_state_dict(state["adam"])
            self.progress = Progress(state["step"], state["elapsed_s"], state["decay_from"])


def _backward(loss: torch.Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _matrices(model: nn.Module) -> list[Matrix]:
    """The weights Muon steps: every linear layer and convolution, but no embedding, table or output layer."""
    parts = {"qkv": 3, "gate_up_proj": 2}
    skipped = ("embed_tokens", "position_embedding", "lm_head")
    return [
        Matrix(parameter, next((n for key, n in parts.items() if key in name), 1))
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2 and not any(word in name for word in skipped)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("eyes", "words"), help="which half learns")
    parser.add_argument("--out", type=Path, required=True, help="a folder that holds tokenizer.json")
    parser.add_argument(
        "--decay-steps", type=int, default=0, help="let the rate fall to nothing in so many steps, and end"
    )
    parser.add_argument("--start", type=Path, help="begin with the weights of this checkpoint of the demo")
    parser.add_argument("--fonts", type=Path, help="a folder of more font files to write numbers with")
    parser.add_argument("--rate", type=float, default=RATE, help="the steady learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="further processes that share each step")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.fonts:
        use_more_fonts(arguments.fonts)
    tokenizer = Tokenizer.from_file(str(arguments.out / "tokenizer.json"))
    eyes = arguments.what == "eyes"
    trainer = Trainer(arguments.out, tokenizer, arguments.seed, arguments.workers, arguments.rate, eyes)
    if arguments.resume:
        trainer.resume()
    elif arguments.start:
        start_from(trainer.model, tokenizer, arguments.start)
    trainer.run(arguments.decay_steps)


if __name__ == "__main__":
    main()
