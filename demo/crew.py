"""Further processes that share each training step: the weights lie in shared memory, gradients are added up there."""

from __future__ import annotations

import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

import torch

Share = Callable[[int, int], dict[str, list[float]]]  # (worker, step) -> what it noted


class Crew:
    """Owns the workers and the memory their gradients come back in."""

    def __init__(self, size: int, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.size = size
        self._parameters = parameters
        self._pipes: list[Connection] = []
        for parameter in parameters if size else ():
            parameter.data.share_memory_()  # type: ignore[no-untyped-call]
        length = sum(parameter.numel() for parameter in parameters)
        self._sums = [_shared_zeros(length) for _ in range(size)]

    def start(self, share: Share) -> None:
        """Begin the workers; they end with the process that began them."""
        context = multiprocessing.get_context("fork")
        for i in range(self.size):
            mine, its = context.Pipe()
            self._pipes.append(mine)
            context.Process(target=self._work, args=(i, its, share), daemon=True).start()
            its.close()

    def begin(self, step: int) -> None:
        for pipe in self._pipes:
            pipe.send(step)

    def gather(self, parameters: Sequence[torch.nn.Parameter]) -> dict[str, list[float]]:
        """Wait for the workers, add their gradients to these parameters', and return what they noted."""
        notes: dict[str, list[float]] = defaultdict(list)
        for pipe, sums in zip(self._pipes, self._sums, strict=True):
            for name, values in pipe.recv().items():
                notes[name] += values
            start = 0
            for parameter in parameters:
                part = sums[start : start + parameter.numel()].view_as(parameter)
                parameter.grad = part.clone() if parameter.grad is None else parameter.grad + part
                start += parameter.numel()
        return notes

    def _work(self, i: int, pipe: Connection, share: Share) -> None:
        torch.set_num_threads(1)
        for other in self._pipes:  # else no pipe would end with the process that began this one
            other.close()
        while True:
            try:
                step = pipe.recv()
            except EOFError:  # the training has ended
                return
            notes = share(i + 1, step)
            grads = (torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters)
            torch.cat([grad.flatten() for grad in grads], out=self._sums[i])
            try:
                pipe.send(notes)
            except BrokenPipeError:  # stopped in the middle of a step
                return


def _shared_zeros(length: int) -> torch.Tensor:
    zeros = torch.zeros(length)
    zeros.share_memory_()  # type: ignore[no-untyped-call]
    return zeros
