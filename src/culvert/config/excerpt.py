"""A few global options of a file that may be wrong elsewhere: a daemon runs on while its file is edited."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from culvert.config.findings import Findings
from culvert.config.lexer import Lexer, Section, read_file, without_comment
from culvert.config.options import find, hides
from culvert.config.values import BadValue
from culvert.errors import ConfigurationError


def global_values(path: str, wanted: Collection[str]) -> dict[str, Any]:
    """The values of those options, by the names of the table, that the file sets in front of its services.

    Raises ConfigurationError where the file cannot be read, or one of these values is wrong.
    """
    found: dict[str, Any] = {}
    for item in Lexer(Findings(), hides).items(read_file(path), path):
        if isinstance(item, Section):
            break
        option = find(item.name)
        if option is None or option.name not in wanted:
            continue
        text = item.value if option.form.spaces else without_comment(item.value)
        try:
            found[option.name] = option.form.parse(text)
        except BadValue as bad:
            raise ConfigurationError.single(
                f'"{option.name}" takes {bad.expected or option.form.takes}', item.location, hint=bad.hint
            ) from None
    return found
