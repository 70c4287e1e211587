"""`fips = yes`: all cryptography by OpenSSL's validated provider, or no start at all."""

from __future__ import annotations

from cryptography.hazmat.backends.openssl.backend import backend

from culvert.config.model import GlobalOptions
from culvert.errors import ConfigurationError
from culvert.tls._openssl import enable_fips


def enforce(options: GlobalOptions) -> None:
    """Hold this process, and those that it forks, to the FIPS provider where the options ask for it.

    Raises ConfigurationError where the OpenSSL in use has none that is active.
    """
    if not options.fips:
        return
    reason = enable_fips()
    if reason is not None:
        raise ConfigurationError.single(
            "There is no active FIPS provider in the OpenSSL in use "
            f"({backend.openssl_version_text()}): {reason}",
            options.locations.get("fips"),
            hint="the wheels of 'cryptography' have none: build it against an OpenSSL with the FIPS provider "
            "installed and activated (pip install --no-binary cryptography cryptography)",
        )
