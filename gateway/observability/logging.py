"""How log events are written: one JSON object per line on standard output."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TextIO, cast

import structlog

from gateway.observability.line_writer import LineWriter


def configure() -> LineWriter:
    """Sets up structlog for this process; called once, at its start. Returns what counts the lines that are lost."""
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")  # one small file can hold forty thousand
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    lines = LineWriter(sys.stdout.fileno())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, lines)),
        cache_logger_on_first_use=True,
    )
    return lines
