"""gunicorn's worker of threads, which stops listening when it is told to end: who comes then is refused at once."""

from __future__ import annotations

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]


class PromptWorker(ThreadWorker):  # type: ignore[misc]
    """Without this, connections that nobody will ever serve pile up in the kernel until the last answer has ended."""

    def set_accept_enabled(self, enabled: bool) -> None:
        """Called on the worker's main thread, and once more when its end has begun."""
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                listener.close()
