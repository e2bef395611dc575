"""Who decodes the files of a request, for whom and until when."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.triton.backend import Cancellation


@dataclass(frozen=True)
class Decoding:
    """What decoding needs besides a file."""

    decoders: DecoderPool
    deadline: Deadline
    cancellation: Cancellation
    caller: str = ""
    salt: str = ""
    """What was decoded is shared within a caller's requests of one salt."""
