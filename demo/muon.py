"""Muon: a momentum optimiser that replaces each matrix's update by its nearest orthogonal matrix."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Matrix:
    """A weight that holds `parts` matrices one above the other (q, k and v; gate and up)."""

    weight: torch.nn.Parameter
    parts: int = 1


class Muon:
    """Steps the matrices it was given; the learning rate has AdamW's scale."""

    def __init__(self, matrices: Iterable[Matrix], momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        self.matrices = list(matrices)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.velocities = [torch.zeros_like(matrix.weight) for matrix in self.matrices]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        looks: list[torch.Tensor] = []
        for matrix, velocity in zip(self.matrices, self.velocities, strict=True):
            gradient = matrix.weight.grad
            if gradient is None:
                gradient = torch.zeros_like(matrix.weight)
            velocity.mul_(self.momentum).add_(gradient)
            look_ahead = gradient + self.momentum * velocity
            flat = look_ahead.reshape(look_ahead.shape[0], -1)  # [out, in]; a convolution's window is one row
            looks += flat.chunk(matrix.parts, dim=0)
        updates = iter(orthogonal_all(looks))
        for matrix in self.matrices:
            update = torch.cat([_sized_like_adam(next(updates)) for _ in range(matrix.parts)])
            matrix.weight.mul_(1 - learning_rate * self.weight_decay)
            matrix.weight.add_(update.view_as(matrix.weight), alpha=-learning_rate)

    def zero_grad(self) -> None:
        for matrix in self.matrices:
            matrix.weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"velocities": self.velocities}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mine, saved in zip(self.velocities, state["velocities"], strict=True):
            mine.copy_(saved)


def orthogonal_all(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Each matrix's orthogonal neighbour; those of one shape are taken together."""
    by_shape: dict[torch.Size, list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        by_shape[matrix.shape].append(i)
    found: dict[int, torch.Tensor] = {}
    for indices in by_shape.values():
        together = orthogonal(torch.stack([matrices[i] for i in indices]))
        found |= dict(zip(indices, together, strict=True))
    return [found[i] for i in range(len(matrices))]


def orthogonal(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Matrices [n, out, in] with the same singular vectors and singular values near one, by Newton and Schulz."""
    a, b, c = 3.4445, -4.7750, 2.0315  # the coefficients of Keller Jordan's Muon: fast rather than exact
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(torch.bfloat16)
    for _ in range(iterations):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    found: torch.Tensor = x.float()
    return found.transpose(1, 2) if tall else found


def _sized_like_adam(update: torch.Tensor) -> torch.Tensor:
    """Scale to the root mean square that AdamW's updates have, about 0.2."""
    return update * (0.2 * math.sqrt(max(update.shape)))
