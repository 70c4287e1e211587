"""How a list of application protocols is written (RFC 7301).

The list as a whole needs no bound here: a line of a configuration holds less than the 65535 bytes that the
extension has room for.
"""

from __future__ import annotations

import re

from culvert.config.values import BadValue, Form

MAX_NAME = 255
"""Bytes of a protocol's name: its length is one byte (RFC 7301, 3.1)."""

# Of the bytes that RFC 7301 permits, those that IANA's names are made of and their like: nothing that
# separates names, or that is meant for a comment.
_NAME = re.compile(r"[!-~]+")
_NEVER = re.compile(r"[#;\"']")


def _protocols(text: str) -> tuple[str, ...]:
    names = tuple(re.split(r"[ \t]*,[ \t]*|[ \t]+", text))
    for name in names:
        if _NAME.fullmatch(name) is None or _NEVER.search(name) or len(name) > MAX_NAME:
            raise BadValue()
    if len(set(names)) < len(names):
        raise BadValue("each protocol once")
    return names


PROTOCOLS = Form(
    "names of protocols such as h2, http/1.1, separated by commas or white space", _protocols, spaces=True
)
