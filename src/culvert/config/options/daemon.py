"""Options of the whole daemon, and `include`."""

from __future__ import annotations

from culvert.config.model import Debug, Foreground, LogFormat, LogMode
from culvert.config.options.option import Availability, Option, Scope
from culvert.config.values import (
    ASSIGNMENT,
    DEBUG,
    FACILITIES,
    FOLDER,
    IDENTITY,
    NAME,
    PATH,
    PATH_OR_NONE,
    SECONDS,
    SECONDS_OR_NONE,
    TEXT,
    WORKERS,
    YES_NO,
    enumeration,
)

_NO_PROVIDER = "the OpenSSL binding in use has no call to load a provider"
_NO_SEED = "OpenSSL seeds its random numbers from the kernel"
_NO_ENGINES = "engines left OpenSSL with version 4.0"
_WINDOWS = "it is an option of stunnel for Windows"

DAEMON = (
    Option(
        "chroot",
        Scope.GLOBAL,
        FOLDER,
        "folder to lock the daemon into",
        global_field="chroot",
    ),
    Option(
        "debug",
        Scope.BOTH,
        DEBUG,
        "[facility.]level of what is logged, 0-7 or emerg to debug",
        default=Debug(5, FACILITIES["daemon"]),
        global_field="debug",
        service_fields=("debug",),
    ),
    Option(
        "drainTimeout",
        Scope.GLOBAL,
        SECONDS,
        "seconds for connections to finish at a stop; 0 ends them",
        default=30.0,
        global_field="drain_timeout",
    ),
    Option(
        "foreground",
        Scope.GLOBAL,
        enumeration(Foreground),
        "yes|quiet|no stay with the terminal (yes: and log to it)",
        default=Foreground.NO,
        global_field="foreground",
    ),
    Option(
        "include",
        Scope.BOTH,
        FOLDER,
        "folder of configuration files to read at this place",
        repeatable=True,
        default=(),
    ),
    Option(
        "log",
        Scope.GLOBAL,
        enumeration(LogMode),
        "append|overwrite what an existing log file holds",
        default=LogMode.APPEND,
        global_field="log",
    ),
    Option(
        "logFormat",
        Scope.GLOBAL,
        enumeration(LogFormat),
        "text|json stunnel's log lines, or an object a line",
        default=LogFormat.TEXT,
        global_field="log_format",
    ),
    Option(
        "output",
        Scope.GLOBAL,
        PATH,
        "file to write the log to",
        global_field="output",
    ),
    Option(
        "pid",
        Scope.GLOBAL,
        PATH_OR_NONE,
        "file for the number of the process; empty for none",
        global_field="pid",
    ),
    Option(
        "reloadDrainTimeout",
        Scope.GLOBAL,
        SECONDS_OR_NONE,
        "none, or seconds for connections to finish after a reload",
        global_field="reload_drain_timeout",
    ),
    Option(
        "service",
        Scope.BOTH,
        NAME,
        "name for syslog, and of the service in inetd mode",
        default="stunnel",
        global_field="service",
        service_fields=("name",),
    ),
    Option(
        "setEnv",
        Scope.GLOBAL,
        ASSIGNMENT,
        "NAME=VALUE in the environment of programs",
        repeatable=True,
        default=(),
        global_field="set_env",
        secret=True,
    ),
    Option(
        "setgid",
        Scope.BOTH,
        IDENTITY,
        "group to run as; in a service, group of its Unix socket",
        global_field="setgid",
        service_fields=("setgid",),
    ),
    Option(
        "setuid",
        Scope.BOTH,
        IDENTITY,
        "user to run as; in a service, owner of its Unix socket",
        global_field="setuid",
        service_fields=("setuid",),
    ),
    Option(
        "syslog",
        Scope.GLOBAL,
        YES_NO,
        "yes|no log to syslog",
        default=True,
        global_field="syslog",
    ),
    Option(
        "watch",
        Scope.GLOBAL,
        YES_NO,
        "yes|no reload when certificate, key or CA files change",
        default=False,
        global_field="watch",
    ),
    Option(
        "workers",
        Scope.GLOBAL,
        WORKERS,
        "auto|number of processes that serve; 0 for no fork",
        global_field="workers",
    ),
    Option(
        "fips",
        Scope.GLOBAL,
        YES_NO,
        "yes|no restrict cryptography to a FIPS provider",
        default=False,
        global_field="fips",
    ),
    Option(
        "provider",
        Scope.GLOBAL,
        TEXT,
        "OpenSSL provider to load",
        repeatable=True,
        default=(),
        availability=Availability.UNSUPPORTED,
        reason=_NO_PROVIDER,
    ),
    Option(
        "providerParameter",
        Scope.GLOBAL,
        TEXT,
        "PROVIDER:PARAMETER=VALUE for an OpenSSL provider",
        repeatable=True,
        default=(),
        availability=Availability.UNSUPPORTED,
        reason=_NO_PROVIDER,
        secret=True,
    ),
    *(
        Option(name, Scope.GLOBAL, TEXT, what, availability=Availability.OBSOLETE, reason=_NO_SEED)
        for name, what in (
            ("EGD", "socket of an entropy gathering daemon"),
            ("RNDbytes", "bytes to read from the file of random data"),
            ("RNDfile", "file of random data"),
            ("RNDoverwrite", "yes|no write new random data to the file"),
        )
    ),
    Option(
        "compression",
        Scope.GLOBAL,
        TEXT,
        "deflate|zlib compress inside TLS",
        availability=Availability.UNSUPPORTED,
        reason="TLS compression leaks secrets (CRIME) and left OpenSSL",
    ),
    *(
        Option(
            name,
            scope,
            TEXT,
            what,
            availability=Availability.UNSUPPORTED,
            reason=_NO_ENGINES,
            secret=name == "engineCtrl",
        )
        for name, scope, what in (
            ("engine", Scope.GLOBAL, "OpenSSL engine to use"),
            ("engineCtrl", Scope.GLOBAL, "command to an OpenSSL engine"),
            ("engineDefault", Scope.GLOBAL, "what an OpenSSL engine is used for"),
            ("engineId", Scope.SERVICE, "OpenSSL engine that holds the key"),
            ("engineNum", Scope.SERVICE, "number of the OpenSSL engine that holds the key"),
        )
    ),
    Option(
        "CAengine",
        Scope.SERVICE,
        TEXT,
        "CA certificate inside an OpenSSL engine",
        repeatable=True,
        default=(),
        availability=Availability.UNSUPPORTED,
        reason=_NO_ENGINES,
    ),
    *(
        Option(
            name, Scope.GLOBAL, form, what, default, availability=Availability.UNSUPPORTED, reason=_WINDOWS
        )
        for name, form, what, default in (
            ("iconActive", PATH, "icon while connections exist", None),
            ("iconError", PATH, "icon after a bad configuration", None),
            ("iconIdle", PATH, "icon while there is no connection", None),
            ("taskbar", YES_NO, "yes|no show an icon in the task bar", False),
        )
    ),
)
