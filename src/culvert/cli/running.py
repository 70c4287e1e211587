"""`culvert run`, and what stunnel's command line comes down to: the daemon from a configuration."""

from __future__ import annotations

import os

from culvert.cli.faults import CONFIGURATION_STATUS, report, say
from culvert.cli.pass_phrase import Prompt
from culvert.errors import ConfigurationError


def run_file(path: str, drain_timeout: float | None = None) -> int:
    """Serve what a configuration file says until a signal ends it; returns the exit status.

    `drain_timeout` counts where the file does not set it, in place of the option's default.
    """
    return _run(path, f"file {path}", drain_timeout)


def run_descriptor(number: int, drain_timeout: float | None = None) -> int:
    """The same with a configuration that is read from an open descriptor."""
    return _run(number, f"descriptor {number}", drain_timeout)


def _run(origin: str | int, name: str, drain_timeout: float | None) -> int:
    try:
        return _serve(origin, drain_timeout)
    except ConfigurationError as error:
        say(f"Reading configuration from {name}", ".")
        report(error)
        say("Configuration failed")
        return CONFIGURATION_STATUS


def _serve(origin: str | int, drain_timeout: float | None) -> int:
    # TLS and the event loop are loaded for a daemon only: this module is imported for -help as well.
    from culvert import privileges  # noqa: PLC0415
    from culvert.activation import Activation  # noqa: PLC0415
    from culvert.generation import ConfigurationSource, Generation, builder  # noqa: PLC0415
    from culvert.notify import Notifier  # noqa: PLC0415
    from culvert.single import SingleProcess  # noqa: PLC0415
    from culvert.supervisor import Supervisor  # noqa: PLC0415

    prompt = Prompt()
    source = ConfigurationSource(origin, drain_timeout)
    activation = Activation.take(os.environ)
    load = builder(source, prompt, activation)

    def build(previous: Generation | None) -> Generation:
        prompt.closed = previous is not None
        return load(previous)

    workers = source.peek().options.workers
    # Behind the first look at the configuration, which may come by a descriptor of the caller's, and before
    # anything is opened to stay open.
    privileges.restore_defaults(len(activation.sockets))
    notifier = Notifier.take(os.environ)
    if workers == 0:
        return SingleProcess(build, notifier).run()
    return Supervisor(build, notifier=notifier).run()
