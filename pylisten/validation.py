"""Turns pydantic's findings into sentences: ``<path>: found <this>, expected <that>``.

The verb, the server's frames and the configuration are all checked by pydantic models; users meet
the results in logs, replies and ``error`` frames, so the three speak one language, kept here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from pylisten.errors import Problem

__all__ = ["expected", "found", "problems", "refused", "without_bool"]

_SHOWN_CHARACTERS = 60

# What each of pydantic's error types expects, in the words of this project; {…} is its context.
_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number from {ge:g} up",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a number of at most 4300 digits",
    "int_type": "a whole number",
    "less_than_equal": "a number up to {le:g}",
    "model_type": "an object",
    "path_not_file": "an existing file",
    "path_type": "a path",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} character(s)",
    "string_type": "a string",
    "string_unicode": "valid Unicode",
    "tuple_type": "an array",
}


def expected(text: str) -> PydanticCustomError:
    """An error for a validator to raise: shown as ``found <value>, expected <text>``."""
    return PydanticCustomError("expected", "{text}", {"text": text})


def refused(text: str) -> PydanticCustomError:
    """An error for a validator to raise: shown as ``<text>``, without the value."""
    return PydanticCustomError("refused", "{text}", {"text": text})


def without_bool(value: object) -> object:
    """Before a ``Literal`` of numbers: Python, and so pydantic, takes true for 1; JSON does not."""
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "")
    return value


def found(value: object) -> str:
    """``value`` as it stands in JSON, cut to one short line; containers only by their kind."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple | set | frozenset):
        return "an array"
    if isinstance(value, str):
        return json.dumps(_cut(_printable(value)), ensure_ascii=False)
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**_SHOWN_CHARACTERS else "a huge number"
    return f"a Python {type(value).__name__}"


def problems(
    error: ValidationError,
    secret: Callable[[str], bool],
    unknown: Callable[[tuple[str, ...]], str],
) -> list[Problem]:
    """Every fault in ``error``, in the order of the model's fields.

    ``secret`` says whether the value at a dotted path must not be shown; ``unknown`` gives the text
    for an unknown key, from the key's path.
    """
    return [_problem(details, secret, unknown) for details in error.errors(include_url=False)]


def _problem(
    details: ErrorDetails,
    secret: Callable[[str], bool],
    unknown: Callable[[tuple[str, ...]], str],
) -> Problem:
    kind, context = details["type"], details.get("ctx", {})
    keys = tuple(map(str, details["loc"]))
    if keys[-1:] == ("[key]",) and kind not in ("extra_forbidden", "invalid_key"):
        keys = keys[:-1]  # pydantic's sign that the key itself is at fault
    path = _printable(".".join(keys))
    if kind in ("extra_forbidden", "invalid_key"):
        return Problem(path, unknown(keys))
    if kind == "missing":
        return Problem(path, "missing")
    if kind == "refused":
        return Problem(path, str(context["text"]))
    shown = _kind_of(details["input"]) if secret(path) else found(details["input"])
    return Problem(path, f"found {shown}, expected {_expectation(kind, context, details['msg'])}")


def _expectation(kind: str, context: Mapping[str, object], message: str) -> str:
    if kind == "expected":
        return str(context["text"])
    if kind == "literal_error":
        values = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        return f"one of {values}" if ", " in values else values
    if kind in _EXPECTED:
        return _EXPECTED[kind].format_map(context)
    return message.removeprefix("Input should be ")


def _kind_of(value: object) -> str:
    """What may be said of a value that must not be shown."""
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return found(value)


def _printable(text: str) -> str:
    """Half a surrogate pair, which Python's strings can hold, would break every log and socket."""
    return text.encode("utf-8", "backslashreplace").decode()


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
