"""Train the demo checkpoint on a CPU: `python -m demo.train --out DIR --minutes 70 [--resume | --start CHECKPOINT]`."""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from demo.batches import LABELS, Encoder, Images, Packed, draw_images, pack_greetings, pack_images
from demo.forward import read, see
from demo.model import new_model, save_model
from demo.muon import Matrix, Muon
from demo.scenes import random_size

VISION_SHARE = 0.24  # of the time goes to the vision tower alone
VISION_RATE, JOINT_RATE = 3e-3, 1.6e-3
VISION_GROUPS, VISION_IMAGES = 4, 16
JOINT_GROUPS, JOINT_IMAGES, QUESTIONS, GREETINGS = 4, 14, 4, 12
WORDS_GROUPS = 2  # where the eyes stay as they are
GREETING_WEIGHT = 0.2
HELPER_WEIGHTS = {"name": 2.0, "colour": 1.0, "place": 1.0, "background": 1.0}
EMPTY_WEIGHT = 0.2  # of a token that shows only background
SAVE_EVERY_S = 180.0
LOG_EVERY_STEPS = 50


class Helper(nn.Module):
    """The throwaway head: reads from each picture token what is there, so that the tower learns to see first."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.heads = nn.ModuleDict({name: nn.Linear(hidden_size, values) for name, values in LABELS.items()})

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
        return torch.stack(losses).sum(), right


@dataclass
class Progress:
    """How far training is; all that a resumed run must know besides the weights."""

    step: int = 0
    elapsed_s: float = 0.0
    right: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, name: str, value: float) -> None:
        self.right[name].append(value)

    def summary(self) -> str:
        means = {name: sum(values) / len(values) for name, values in sorted(self.right.items()) if values}
        self.right.clear()
        return " ".join(f"{name} {mean:.3f}" for name, mean in means.items())


class Trainer:
    """Owns the weights, the optimisers and the clock."""

    def __init__(
        self, out: Path, minutes: float, tokenizer: Tokenizer, seed: int, rate: float = JOINT_RATE, sees: bool = False
    ) -> None:
        """`sees`: the eyes of the weights to begin with stay as they are, and only the words are learnt."""
        self.rate, self.sees = rate, sees
        self.out, self.total_s, self.seed = out, minutes * 60, seed
        self.tokenizer, self.encoder = tokenizer, Encoder(tokenizer)
        self.model = new_model(tokenizer, seed)
        self.model.model.visual.requires_grad_(not sees)
        self.helper = Helper(self.model.lm_head.in_features)
        self.muon = Muon(_matrices(self.model))
        mine = {id(matrix.weight) for matrix in self.muon.matrices}
        rest = [p for p in (*self.model.parameters(), *self.helper.parameters()) if id(p) not in mine]
        self.adam = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0)
        self.progress = Progress()

    def run(self) -> None:
        started = time.monotonic() - self.progress.elapsed_s
        saved = time.monotonic()
        while (elapsed := time.monotonic() - started) < self.total_s:
            self.progress.elapsed_s = elapsed
            self.step()
            if self.progress.step % LOG_EVERY_STEPS == 0:
                self.log()
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()
        save_model(self.model, self.tokenizer, self.out)

    def step(self) -> None:
        rng = random.Random(f"{self.seed} {self.progress.step}")
        part = self.progress.elapsed_s / self.total_s
        if self.sees:
            self.joint_step(rng, helper_weight=0.0)
            rate = self.rate * _cosine(part)
        elif part < VISION_SHARE:
            self.vision_step(rng)
            rate = VISION_RATE * _cosine(part / VISION_SHARE)
        else:
            through = (part - VISION_SHARE) / (1 - VISION_SHARE)
            self.joint_step(rng, helper_weight=0.4 + (0.12 - 0.4) * through)
            rate = self.rate * _cosine(through)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.muon.step(rate)
        self.adam.zero_grad()
        self.muon.zero_grad()
        self.progress.step += 1

    def vision_step(self, rng: random.Random) -> None:
        for _ in range(VISION_GROUPS):
            images = draw_images(rng, VISION_IMAGES, random_size(rng), crowded=True)
            loss, right = self.helper.loss(see(self.model, images.patches, images.grid), images)
            _backward(loss / VISION_GROUPS)
            for name, value in right.items():
                self.progress.note("see-" + name, value)
            self.progress.note("~see-loss", loss.item())

    def joint_step(self, rng: random.Random, helper_weight: float) -> None:
        groups = WORDS_GROUPS if self.sees else JOINT_GROUPS
        for _ in range(groups):
            images = draw_images(rng, JOINT_IMAGES, random_size(rng))
            packed = pack_images(rng, self.encoder, images, QUESTIONS)
            with torch.set_grad_enabled(not self.sees):
                features = see(self.model, images.patches, images.grid)
                helper_loss, _ = self.helper.loss(features, images)
            loss = self.answer_loss(packed, features)
            _backward((loss + helper_weight * helper_loss) / groups)
            self.progress.note("~loss", loss.item())
            self.progress.note("~see-loss", helper_loss.item())
        greetings = pack_greetings(rng, self.encoder, GREETINGS)
        _backward(GREETING_WEIGHT * self.answer_loss(greetings, None))

    def answer_loss(self, packed: Packed, features: torch.Tensor | None) -> torch.Tensor:
        """Weighted cross-entropy a question; notes which answers a greedy reader would have got right to the letter."""
        hidden = read(self.model, packed.ids, packed.positions, packed.mask, features, packed.features_start)
        logits = self.model.lm_head(hidden.flatten(0, 1)[packed.predicted_at])
        losses = functional.cross_entropy(logits, packed.targets, reduction="none")
        wrong = (logits.argmax(-1) != packed.targets).long()
        mistakes = torch.zeros(len(packed.questions), dtype=torch.long).index_add_(0, packed.owners, wrong)
        for question, count in zip(packed.questions, mistakes.tolist(), strict=True):
            self.progress.note(question.kind, float(count == 0))
        return (losses * packed.weights).sum() / len(packed.questions)

    def log(self) -> None:
        print(
            f"{time.strftime('%H:%M:%S')} step {self.progress.step} {self.progress.elapsed_s / 60:.1f} min "
            f"{self.progress.summary()}",
            flush=True,
        )

    def save(self) -> None:
        """Everything a resumed run needs, written beside and renamed."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "helper": self.helper.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "step": self.progress.step,
            "elapsed_s": self.progress.elapsed_s,
        }
        torch.save(state, self.out / "training.pt.new")
        (self.out / "training.pt.new").rename(self.out / "training.pt")

    def resume(self) -> None:
        state = torch.load(self.out / "training.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.helper.load_state_dict(state["helper"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.progress = Progress(state["step"], state["elapsed_s"])


def _backward(loss: torch.Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _cosine(part: float, warm_up: float = 0.03) -> float:
    """From 0 up to 1 and down a cosine to 0 as `part` goes from 0 to 1."""
    if part < warm_up:
        return max(part, 1e-3) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (part - warm_up) / (1 - warm_up))))


def _matrices(model: nn.Module) -> list[Matrix]:
    """The weights Muon steps: every linear layer and convolution, but no embedding, table or output layer."""
    parts = {"qkv": 3, "gate_up_proj": 2}
    skipped = ("embed_tokens", "position_embedding", "lm_head")
    return [
        Matrix(parameter, next((n for key, n in parts.items() if key in name), 1))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim >= 2 and not any(word in name for word in skipped)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder that holds tokenizer.json")
    parser.add_argument("--minutes", type=float, default=70.0)
    parser.add_argument("--start", type=Path, help="begin with this checkpoint's weights, whose eyes stay as they are")
    parser.add_argument("--rate", type=float, default=JOINT_RATE, help="the highest learning rate, words and all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = Tokenizer.from_file(str(arguments.out / "tokenizer.json"))
    sees = arguments.start is not None
    trainer = Trainer(arguments.out, arguments.minutes, tokenizer, arguments.seed, arguments.rate, sees)
    if arguments.resume:
        trainer.resume()
    elif arguments.start:
        weights = load_file(arguments.start / "model.safetensors")
        trainer.model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    trainer.run()


if __name__ == "__main__":
    main()
