"""The global options of a daemon that logs nowhere, for a test to replace what it is about."""

from __future__ import annotations

from culvert.config.model import ConnectionLimits, Debug, Foreground, GlobalOptions, LogFormat, LogMode

DEBUG = Debug(level=7, facility=3)

OPTIONS = GlobalOptions(
    chroot=None,
    locations={},
    debug=DEBUG,
    drain_timeout=0.0,
    fips=False,
    foreground=Foreground.QUIET,
    log=LogMode.APPEND,
    log_format=LogFormat.TEXT,
    output=None,
    pid=None,
    reload_drain_timeout=None,
    service="culvert",
    set_env=(),
    setgid=None,
    setuid=None,
    syslog=False,
    workers=None,
    watch=False,
    limits=ConnectionLimits(),
)
