"""One comparison's outcome: the worst and the typical error, and what is allowed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stage:
    """One comparison: the worst and the typical (median) error, and what is allowed of the worst."""

    name: str
    worst: float
    typical: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return bool(self.worst <= self.tolerance)  # a NaN does not pass

    @staticmethod
    def of(name: str, found: np.ndarray, wanted: np.ndarray, tolerance: float, is_relative: bool = False) -> Stage:
        """Compares number by number, or, relatively, vector by vector along the last axis."""
        if found.shape != wanted.shape:
            return Stage(f"{name} (shape {list(found.shape)}, not {list(wanted.shape)})", np.inf, np.inf, tolerance)
        error = np.abs(found.astype(np.float64) - wanted)
        if is_relative:
            name = f"{name}, relative"
            error = np.linalg.norm(error, axis=-1) / np.linalg.norm(wanted.astype(np.float64), axis=-1)
        return Stage(name, float(error.max(initial=0.0)), float(np.median(error)) if error.size else 0.0, tolerance)

    @staticmethod
    def of_divergence(name: str, found: np.ndarray, wanted: np.ndarray, tolerance: float) -> Stage:
        """Kullback-Leibler divergence in nats of the probabilities that logits [tokens, vocabulary] stand for."""
        right, ours = _log_probabilities(wanted), _log_probabilities(found)
        divergence = (np.exp(right) * (right - ours)).sum(axis=-1)
        return Stage(f"{name}, divergence", float(divergence.max()), float(np.median(divergence)), tolerance)


def share_changed(name: str, changed: list[bool], tolerance: float) -> Stage:
    """How many of some yes-or-no questions came out otherwise, as a share."""
    return Stage(name, float(np.mean(changed)), float(np.median(changed)), tolerance)


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
