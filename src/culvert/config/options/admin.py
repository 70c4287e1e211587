"""Options of the admin endpoint."""

from __future__ import annotations

from culvert.config.addresses import ADMIN
from culvert.config.options.option import Option, Scope
from culvert.config.values import PATH, TOKEN, YES_NO

ADMINISTRATION = (
    Option(
        "admin",
        Scope.GLOBAL,
        ADMIN,
        "[host:]port or Unix socket that tells how the daemon fares",
        global_field="admin",
    ),
    Option(
        "adminToken",
        Scope.GLOBAL,
        TOKEN,
        "token that requests to the admin endpoint must bring",
        global_field="admin",
        secret=True,
    ),
    Option(
        "adminTokenFile",
        Scope.GLOBAL,
        PATH,
        "file that holds this token",
        global_field="admin",
    ),
    Option(
        "trace",
        Scope.SERVICE,
        YES_NO,
        "yes|no let the admin endpoint show all that is carried, in clear",
        default=False,
        service_fields=("trace",),
    ),
)
