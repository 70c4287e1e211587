"""The secrets of every session in a file, for a network analyser: the NSS key log format (Wireshark)."""

from __future__ import annotations

import contextlib
import os
import stat
import weakref
from typing import Any

from culvert.config.model import Service
from culvert.errors import ConfigurationError, os_reason
from culvert.tls._openssl import ffi, lib


def write_keys(context: Any, service: Service) -> Any:
    """Append the secrets of an SSL_CTX's sessions to the service's `keylog`. Raises ConfigurationError.

    The file is its owner's alone. It is opened now, for a worker in a jail could not, and closed when the
    result goes, which must be kept for as long as the SSL_CTX lives; None where there is nothing to do.
    """
    path = service.key_log
    if path is None:
        return None
    descriptor = _open(service, path)

    def write(_ssl: Any, line: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk ends no connection
            os.write(descriptor, ffi.string(line) + b"\n")

    callback = ffi.callback("void (*)(const SSL *, const char *)", write)
    weakref.finalize(write, os.close, descriptor)
    lib.SSL_CTX_set_keylog_callback(context, callback)
    return callback


def _open(service: Service, path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            # Of what is no file, /dev/null perhaps, the mode is not this service's alone.
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.fchmod(descriptor, 0o600)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise ConfigurationError.single(
            f"Cannot write the key log {path}: {os_reason(error)}", service.where("keylog"), service.name
        ) from None
    return descriptor
