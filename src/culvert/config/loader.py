"""From a file to a Configuration: types the values, collects what is wrong, builds the tree."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

from culvert.config.access_rules import check_clients_by_name, check_inherited_targets
from culvert.config.admin_rules import admin_options, check_admin, check_trace
from culvert.config.derived import connection_limits, derived_fields
from culvert.config.draft import Draft, Entry
from culvert.config.findings import MAX_ERRORS, Findings
from culvert.config.lexer import Item, Lexer, Section, Setting, read_file, without_comment
from culvert.config.limit_rules import check_daemon_limits
from culvert.config.model import Configuration, GlobalOptions, Service
from culvert.config.options import OPTIONS, Availability, Option, Scope, find, hides, named, names
from culvert.config.rules import check_addresses, check_names, check_service
from culvert.config.server_names import check_primaries, with_inherited_ends
from culvert.config.values import BadValue, nearest
from culvert.config.vpn_rules import check_vpns
from culvert.errors import ConfigurationError, Location

MAX_VALUE_SHOWN = 80
"""Characters of a bad value that its message repeats."""


def load(path: str) -> Configuration:
    """Read the configuration in the file `path` and in the folders that it includes.

    Raises ConfigurationError with everything that is wrong in it, and also with what is only doubtful, in
    the order of the lines; or with one sentence if the file cannot be read. Relative paths in the file
    stay as they are.
    """
    return loads(read_file(path), path)


def loads(text: bytes | str, path: str) -> Configuration:
    """Like `load` for a configuration that was read already; messages call it `path`."""
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    findings = Findings()
    reader = _Reader(path, findings)
    reader.read(Lexer(findings, hides).items(content, path))
    if findings.hopeless:
        findings.error(f"after {MAX_ERRORS} errors the rest was not read", None)
    else:
        reader.check()
    if findings.failed:
        raise ConfigurationError(findings.in_order())
    return reader.configuration()


class _Reader:
    """The state of one load: the defaults, and the services under them."""

    def __init__(self, path: str, findings: Findings) -> None:
        self._path = path
        self._findings = findings
        self._defaults = Draft(named("service").default, Location(path, 1, ""))
        self._sections: list[Draft] = []
        self._faulty: list[Draft] = []
        self._settings = 0

    def read(self, items: Iterable[Item]) -> None:
        """Take the items in; whatever is wrong with one of them goes to the findings."""
        for item in items:
            if isinstance(item, Section):
                self._sections.append(Draft(item.name, item.location, self._defaults))
                if item.faulty:
                    self._faulty.append(self._sections[-1])
            else:
                self._set(item)

    def check(self) -> None:
        """Apply the rules that go past a single line."""
        drafts = [draft for draft in self._drafts() if draft not in self._faulty]
        for draft in drafts:
            check_service(draft, self._findings, inetd=not self._sections)
        check_names(drafts, self._findings)
        check_addresses(drafts, self._findings)
        check_primaries(drafts, self._findings)
        check_clients_by_name(drafts, self._findings)
        check_inherited_targets(drafts, self._findings)
        check_admin(self._defaults, self._findings, inetd=not self._sections)
        check_trace(drafts, self._defaults, self._findings, inetd=not self._sections)
        check_vpns(drafts, self._defaults, self._findings, inetd=not self._sections)
        check_daemon_limits(self._defaults, self._sections, self._findings)

    def configuration(self) -> Configuration:
        """The tree; to be called only if nothing is wrong."""
        return Configuration(
            path=self._path,
            options=_global_options(self._defaults),
            services=with_inherited_ends([_service(draft) for draft in self._drafts()]),
            inetd=not self._sections,
            findings=self._findings.in_order(),
        )

    def _drafts(self) -> list[Draft]:
        return self._sections or [self._defaults]

    def _set(self, setting: Setting) -> None:
        draft = self._sections[-1] if self._sections else self._defaults
        if self._settings == 0 and draft is self._defaults:
            draft.location = setting.location
        self._settings += 1
        option = find(setting.name)
        if option is None:
            self._unknown(draft, setting)
        elif option.scope is Scope.GLOBAL and self._sections:
            self._findings.error(
                f'"{option.name}" belongs to the whole daemon, above the first [service]', setting.location
            )
        else:
            self._enter(draft, option, setting)

    def _unknown(self, draft: Draft, setting: Setting) -> None:
        name = nearest(setting.name, names())
        hint = None if name is None else f'did you mean "{name}"?'
        self._findings.error(
            f'there is no option "{setting.name[:MAX_VALUE_SHOWN]}"', setting.location, hint=hint
        )
        if name is not None:
            draft.spoil(named(name))

    def _enter(self, draft: Draft, option: Option, setting: Setting) -> None:
        text = setting.value if option.form.spaces else without_comment(setting.value)
        try:
            value = option.form.parse(text)
        except BadValue as bad:
            self._findings.error(_refusal(option, text, bad), setting.location, hint=bad.hint)
            draft.spoil(option)
            return
        if not self._usable(option, value, setting.location):
            draft.spoil(option)
            return
        replaced = draft.add(option, Entry(value, setting.location, self._settings))
        if replaced is not None:
            self._findings.warning(
                f'"{option.name}" is set at {replaced.location} already; this line counts', setting.location
            )

    def _usable(self, option: Option, value: Any, where: Location) -> bool:
        """Whether this version does what the line asks for; says so if not, or if the line does nothing."""
        match option.availability:
            case Availability.UNSUPPORTED if value != option.default:
                self._findings.error(f'"{option.name}" is not supported: {option.reason}', where)
                return False
            case Availability.OBSOLETE:
                self._findings.warning(f'"{option.name}" does nothing: {option.reason}', where)
            case Availability.NEEDLESS:
                self._findings.note(f'"{option.name}" does nothing: {option.reason}', where)
        remark = option.remark(value) if option.remark is not None else None
        if remark is not None:
            self._findings.note(remark, where)
        return True


def _refusal(option: Option, text: str, bad: BadValue) -> str:
    if option.secret:
        found = "this value"
    elif not text:
        found = "an empty value"
    else:
        found = f'"{text}"' if len(text) <= MAX_VALUE_SHOWN else f'"{text[:MAX_VALUE_SHOWN]}..."'
    return f'"{option.name}" takes {bad.expected or option.form.takes}, not {found}'


def _global_options(defaults: Draft) -> GlobalOptions:
    fields = {o.global_field: defaults.value(o.name) for o in OPTIONS if o.global_field is not None}
    fields["limits"] = connection_limits(defaults)
    fields["admin"] = admin_options(defaults)
    return GlobalOptions(**fields, locations=MappingProxyType(defaults.locations(Scope.SERVICE)))


def _service(draft: Draft) -> Service:
    fields: dict[str, Any] = {
        field: draft.value(option.name) for option in OPTIONS for field in option.service_fields
    }
    fields |= derived_fields(draft)
    fields |= {
        "name": draft.name,
        "location": draft.location,
        "locations": MappingProxyType(draft.locations()),
    }
    return Service(**fields)
