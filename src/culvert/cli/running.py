"""`culvert run`, and what stunnel's command line comes down to: the daemon from a configuration."""

from __future__ import annotations

import os

from culvert.cli.faults import CONFIGURATION_STATUS, report, say
from culvert.cli.pass_phrase import Prompt
from culvert.errors import ConfigurationError


def run_file(path: str, drain_timeout: float | None = None) -> int:
    """Serve what a configuration file says, until a signal ends it or, in inetd mode, the connection is over;
    returns the exit status.

    `drain_timeout` counts where the file does not set it, in place of the option's default.
    """
    return _run(path, f"file {path}", drain_timeout)


def run_descriptor(number: int, drain_timeout: float | None = None) -> int:
    """The same with a configuration that is read from an open descriptor."""
    return _run(number, f"descriptor {number}", drain_timeout)


def _run(origin: str | int, name: str, drain_timeout: float | None) -> int:
    # Its own import, for as long as nothing else of the daemon is needed.
    from culvert.inherited import spare_the_client  # noqa: PLC0415

    for_syslog = spare_the_client()
    try:
        return _serve(origin, drain_timeout)
    except ConfigurationError as error:
        if for_syslog:
            _report_to_syslog(error)
        say(f"Reading configuration from {name}", ".")
        report(error)
        say("Configuration failed")
        return CONFIGURATION_STATUS


def _report_to_syslog(error: ConfigurationError) -> None:
    """What is wrong, for the operator of an inetd whose standard error is the client's socket."""
    from culvert.config.values import FACILITIES  # noqa: PLC0415
    from culvert.log import Entry, Level, Log, SyslogSink  # noqa: PLC0415

    log = Log([SyslogSink("stunnel")])
    for finding in error.diagnostics:
        log.write(Entry(Level.ERR, FACILITIES["daemon"], "ui", str(finding)))
    log.close()


def _serve(origin: str | int, drain_timeout: float | None) -> int:
    # TLS and the event loop are loaded for a daemon only: this module is imported for -help as well.
    from culvert import privileges  # noqa: PLC0415
    from culvert.activation import Activation  # noqa: PLC0415
    from culvert.descriptors import DescriptorLimit  # noqa: PLC0415
    from culvert.generation import Generation, builder  # noqa: PLC0415
    from culvert.inetd import InetdProcess  # noqa: PLC0415
    from culvert.inherited import passed_by_systemd  # noqa: PLC0415
    from culvert.notify import Notifier  # noqa: PLC0415
    from culvert.single import SingleProcess  # noqa: PLC0415
    from culvert.source import ConfigurationSource  # noqa: PLC0415
    from culvert.supervisor import Supervisor  # noqa: PLC0415

    prompt = Prompt()
    source = ConfigurationSource(origin, drain_timeout)
    configuration = source.peek()
    if configuration.inetd and origin in (0, 1):
        raise ConfigurationError.single(
            f"Without a [service] section, descriptor {origin} is the connection: the configuration cannot "
            "come by it",
            hint="pass it on another descriptor, as '-fd 3', or in a file",
        )
    activation = Activation() if configuration.inetd else Activation.take(os.environ)
    # Behind the first look at the configuration, which may come by a descriptor of the caller's, and before
    # anything is opened to stay open.
    privileges.restore_defaults(passed_by_systemd() if configuration.inetd else len(activation.sockets))
    load = builder(source, prompt, DescriptorLimit(), activation)

    def build(previous: Generation | None) -> Generation:
        prompt.closed = previous is not None
        return load(previous)

    if configuration.inetd:
        if os.isatty(0) and os.isatty(2):  # more often a section forgotten than meant so
            say("There is no [service] section: the connection is this terminal", ".")
        return InetdProcess(build).run()
    notifier = Notifier.take(os.environ)
    if configuration.options.workers == 0:
        return SingleProcess(build, notifier).run()
    return Supervisor(build, notifier=notifier).run()
