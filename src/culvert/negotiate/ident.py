"""The identification protocol (RFC 1413): the question for a connection's owner, and what the answer says."""

from __future__ import annotations

import re

from culvert.negotiate.script import NegotiationError

PORT = 113

LINE_LIMIT = 1000
"""Most characters of an answer (RFC 1413, 4: neither side may expect more)."""

_ERRORS = frozenset({"INVALID-PORT", "NO-USER", "HIDDEN-USER", "UNKNOWN-ERROR"})
_ANSWER = re.compile(
    rb"[ \t]*([0-9]{1,5})[ \t]*,[ \t]*([0-9]{1,5})[ \t]*:[ \t]*(?i:(USERID|ERROR))[ \t]*:(.*)", re.DOTALL
)


class IdentError(NegotiationError):
    """An ident server gave no name, and this is why."""


def question(theirs: int, ours: int) -> bytes:
    """Asks who owns the connection from the port `theirs` of the server's machine to our port `ours`."""
    return b"%d , %d\r\n" % (theirs, ours)


def owner(line: bytes, theirs: int, ours: int) -> bytes:
    """The user that an answer names, without the line's end. Raises IdentError."""
    answer = _ANSWER.fullmatch(line)
    if answer is None or (int(answer[1]), int(answer[2])) != (theirs, ours):
        raise IdentError("gave an answer that belongs to no question of ours")
    kind, rest = answer[3].upper(), answer[4]
    if kind == b"ERROR":
        word = rest.strip(b" \t").decode("ascii", "replace")
        raise IdentError(f"answers {word}" if word in _ERRORS else "answers with an error")
    system, colon, user = rest.partition(b":")
    # OTHER says that the name is none of a user's (section 5).
    if not colon or system.partition(b",")[0].strip(b" \t").upper() == b"OTHER":
        raise IdentError("names no user")
    user = user.strip(b" \t")
    if not user:
        raise IdentError("names no user")
    return user
