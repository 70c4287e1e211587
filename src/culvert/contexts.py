"""The TLS contexts of a configuration's services, and what the log says of their certificates."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from culvert.config.model import Service
from culvert.errors import ConfigurationError, Diagnostic, UnusableFileError
from culvert.log import Channel, Level
from culvert.tls.context import TlsContext
from culvert.tls.credentials import PassPhrases
from culvert.tls.lifetime import Lifetime


def make_contexts(services: Sequence[Service], phrases: PassPhrases) -> list[TlsContext]:
    """Every service's context. Raises ConfigurationError with the faults of all of them together, and
    UnusableFileError where all are of files.
    """
    contexts: list[TlsContext] = []
    faults: list[Diagnostic] = []
    unusable = True
    for service in services:
        try:
            contexts.append(TlsContext(service, phrases))
        except ConfigurationError as error:
            unusable = unusable and isinstance(error, UnusableFileError)
            faults.extend(error.diagnostics)
    if faults:
        raise (UnusableFileError if unusable else ConfigurationError)(faults)
    return contexts


def report_lifetimes(services: Sequence[Service], contexts: Sequence[TlsContext], main: Channel) -> None:
    """Log what is left of each service's certificate, and of what leads from it to a root where that ends."""
    now = datetime.datetime.now(datetime.UTC)
    for service, context in zip(services, contexts, strict=True):
        chain = context.credentials.chain if context.credentials is not None else ()
        for depth, certificate in enumerate(chain):
            lifetime = Lifetime.of(certificate, now)
            if depth == 0 or lifetime.ends_soon:
                level = Level.WARNING if lifetime.ends_soon else Level.INFO
                main.write(level, f"Service [{service.name}]: {lifetime}")
