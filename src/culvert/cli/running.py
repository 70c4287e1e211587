"""`culvert run`, and what stunnel's command line comes down to: the daemon from a configuration."""

from __future__ import annotations

from culvert.cli.faults import CONFIGURATION_STATUS, report, say
from culvert.cli.pass_phrase import Prompt
from culvert.errors import ConfigurationError


def run_file(path: str) -> int:
    """Serve what a configuration file says until a signal ends it; returns the exit status."""
    return _run(path, f"file {path}")


def run_descriptor(number: int) -> int:
    """The same with a configuration that is read from an open descriptor."""
    return _run(number, f"descriptor {number}")


def _run(origin: str | int, name: str) -> int:
    try:
        return _serve(origin)
    except ConfigurationError as error:
        say(f"Reading configuration from {name}", ".")
        report(error)
        say("Configuration failed")
        return CONFIGURATION_STATUS


def _serve(origin: str | int) -> int:
    # TLS and the event loop are loaded for a daemon only: this module is imported for -help as well.
    from culvert import privileges  # noqa: PLC0415
    from culvert.descriptors import DescriptorLimit  # noqa: PLC0415
    from culvert.generation import ConfigurationSource, Generation, builder  # noqa: PLC0415
    from culvert.single import SingleProcess  # noqa: PLC0415
    from culvert.supervisor import Supervisor  # noqa: PLC0415

    prompt = Prompt()
    source = ConfigurationSource(origin)
    workers = source.peek().options.workers
    # Behind the first look at the configuration, which may come by a descriptor of the caller's, and before
    # anything is opened to stay open.
    privileges.restore_defaults()
    load = builder(source, prompt, DescriptorLimit())

    def build(previous: Generation | None) -> Generation:
        prompt.closed = previous is not None
        return load(previous)

    if workers == 0:
        return SingleProcess(build).run()
    return Supervisor(build).run()
