"""The kernels that TensorRT for RTX compiled on this machine, kept beside the build so that the next start is fast."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

_log = logging.getLogger(__name__)
FOLDER = "engines"
"""Beside the builds, where engines for one machine lie; `prune` removes those of builds that are gone."""


class KernelCache:
    """Handed to every context; TensorRT itself refuses what another GPU, driver or version has left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cache: Any = None
        self._known = b""

    @staticmethod
    def of(build: Path, version: str, compute_capability: str) -> KernelCache:
        """For a build, on GPUs of one kind: `engines/<digest>/rtx-sm89-1.7.1.116.kernels`."""
        name = f"rtx-sm{compute_capability.replace('.', '')}-{version}.kernels"
        return KernelCache(build.resolve().parent / FOLDER / build.resolve().name / name)

    def join(self, config: Any) -> None:
        """Lets what a runtime configuration compiles go here, and lets it find what was compiled before."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._known = self._path.read_bytes() if self._path.is_file() else b""
            if self._known and not self._cache.deserialize(self._known):
                _log.warning("%s is of another GPU, driver or version, and is made anew", self._path)
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Writes what is new; where that cannot be written, the next start compiles again."""
        if self._cache is None:
            return
        held = bytes(memoryview(self._cache.serialize()))
        if held == self._known:
            return
        aside = self._path.with_name(f".{self._path.name}-{uuid4().hex}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(held)
            aside.rename(self._path)
        except OSError as error:
            with suppress(OSError):
                aside.unlink()
            _log.warning("compiled kernels cannot be kept in %s: %s", self._path, error.strerror)
            return
        self._known = held
