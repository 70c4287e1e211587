"""The log: lines of text or JSON objects, written to a file, to a standard stream and to syslog."""

from culvert.log.channel import Channel, Log, changed, shown
from culvert.log.lines import TEXT_LIMIT, Entry, Fields, JsonLines, Level, Lines, TextLines, clean
from culvert.log.opening import open_log
from culvert.log.sinks import KINDS, SYSLOG_PATH, FileSink, Sink, SyslogSink, is_journal

__all__ = [
    "KINDS",
    "SYSLOG_PATH",
    "TEXT_LIMIT",
    "Channel",
    "Entry",
    "Fields",
    "FileSink",
    "JsonLines",
    "Level",
    "Lines",
    "Log",
    "Sink",
    "SyslogSink",
    "TextLines",
    "changed",
    "clean",
    "is_journal",
    "open_log",
    "shown",
]
