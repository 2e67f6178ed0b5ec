"""Profiles: properties of a verb that stand in the configuration, so that they need not be shown.

The verb's own properties win. Objects of independent keys (`headers`, `metadata`, `reconnect`) are
merged key by key; all else, `wsAuth` and `actionHook` too, is taken whole from one of the two, so
that a password never goes where it was not meant to go.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import Url

from pylisten.errors import Problem
from pylisten.validation import found

__all__ = ["NOT_IN_A_PROFILE", "with_profile"]

_SWITCH = "cannot stand in a profile: the switch needs it when the listen begins"

#: The properties that a profile cannot hold, and why.
NOT_IN_A_PROFILE: Mapping[str, str] = {
    "verb": "cannot stand in a profile: it names the verb itself",
    "profile": "a profile cannot use another one",
    "name": _SWITCH,
    "mixType": _SWITCH,
    "sampleRate": _SWITCH,
    "disableBidirectionalAudio": _SWITCH,
    "bidirectionalAudio": _SWITCH,
    "includePlayback": _SWITCH,
    "earlyMedia": _SWITCH,
    "playBeep": _SWITCH,
}

_MERGED = ("headers", "metadata", "reconnect")


def with_profile(
    verb: Mapping[str, object], profiles: Mapping[str, Mapping[str, object]]
) -> tuple[dict[str, object], list[Problem]]:
    """The properties of ``verb`` over those of the profile it names, and what is wrong with that.

    ``verb`` is not checked otherwise, and may hold anything.
    """
    name = verb.get("profile")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)  # a dialplan's profile=7
    if not isinstance(name, str):
        return dict(verb), []
    if name not in profiles:
        known = f"one of {', '.join(profiles)}" if profiles else "none: no profile is configured"
        return dict(verb), [Problem("profile", f"found {found(name)}, expected {known}")]
    profile = profiles[name]
    merged = {**profile, **verb}
    for key in _MERGED:
        below, above = profile.get(key), verb.get(key)
        if isinstance(below, Mapping) and isinstance(above, Mapping):
            merged[key] = _merge(below, above, ignore_case=key == "headers")
    faults = []
    if _gives_credentials_away(verb, profile):
        fault = (
            f"found another server than that of profile {found(name)}, whose wsAuth and headers "
            "are meant for that one alone: expected no url, or a profile without one"
        )
        faults.append(Problem("url", fault))
    return merged, faults


def _merge(
    below: Mapping[str, object], above: Mapping[str, object], *, ignore_case: bool
) -> dict[str, object]:
    def same(key: str) -> str:
        return key.lower() if ignore_case else key

    hidden = {same(key) for key in above if isinstance(key, str)}
    return {**{key: value for key, value in below.items() if same(key) not in hidden}, **above}


def _gives_credentials_away(verb: Mapping[str, object], profile: Mapping[str, object]) -> bool:
    """Whoever may write a verb must not learn what the profile exists to hide."""
    secrets = "headers" in profile or ("wsAuth" in profile and "wsAuth" not in verb)
    if not secrets or "url" not in verb or "url" not in profile:
        return False
    server = _server(verb["url"])
    return server is not None and server != _server(profile["url"])


def _server(url: object) -> tuple[str, str | None, int | None] | None:
    """Scheme, host and port of a URL; None if it is none, which is told elsewhere."""
    try:
        parsed = Url(str(url))
    except ValidationError:
        return None
    return parsed.scheme.replace("http", "ws"), parsed.host, parsed.port
