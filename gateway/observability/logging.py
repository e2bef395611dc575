"""How log events are written: one JSON object per line on standard output."""

from __future__ import annotations

import logging
import sys
import warnings

import structlog


def configure() -> None:
    """Sets up structlog for this process; called once, at its start."""
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")  # one small file can hold forty thousand
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
