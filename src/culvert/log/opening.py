"""Opens the log that the global options ask for."""

from __future__ import annotations

from culvert.config.model import Foreground, GlobalOptions, LogFormat, LogMode
from culvert.errors import ConfigurationError, os_reason
from culvert.jail import Place
from culvert.log.channel import Log
from culvert.log.lines import JsonLines, Lines, TextLines
from culvert.log.sinks import FileSink, JournalSink, Sink, SyslogSink, open_for_append, standard_stream

_STANDARD_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}


def open_log(options: GlobalOptions, *, first: bool = True, jailed: bool = False) -> Log:
    """The log that the global options ask for.

    `first` is false on a reload, where `log = overwrite` must not empty the file that is in use; `jailed`
    is for a process that is in the jail already. Raises ConfigurationError when `output` cannot be opened.
    """
    lines: Lines = JsonLines() if options.log_format is LogFormat.JSON else TextLines()
    sinks: list[Sink] = []
    if options.output is not None:
        place = Place(options.chroot, options.output)
        place = place.in_jail() if jailed else place
        sinks.append(_open_output(options, options.output, place, first, lines))
    if options.foreground is Foreground.YES:
        sinks.append(standard_stream(2, lines))
    # The journal has syslog's messages as well: it would have each line twice.
    if options.syslog and not any(isinstance(sink, JournalSink) for sink in sinks):
        sinks.append(SyslogSink(options.service, lines))
    return Log(sinks, lines)


def _open_output(options: GlobalOptions, output: str, place: Place, first: bool, lines: Lines) -> FileSink:
    if output in _STANDARD_STREAMS:  # a socket or a pipe cannot be opened by this name
        return standard_stream(_STANDARD_STREAMS[output], lines)
    try:
        fd = open_for_append(place, truncate=first and options.log is LogMode.OVERWRITE)
    except OSError as error:
        raise ConfigurationError.single(
            f"Cannot open the log file {place}: {os_reason(error)}",
            options.locations.get("output"),
            hint="'output' is opened for appending, inside 'chroot' where that is set; a pipe needs a reader",
        ) from None
    return FileSink(fd, place, lines)
