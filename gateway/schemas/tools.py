"""The tools that a request offers the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from gateway.schemas.common import Body
from glmserve.model.tool_parser import FUNCTION_NAME

FunctionName = Annotated[str, StringConstraints(pattern=FUNCTION_NAME)]


class Function(Body):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function
