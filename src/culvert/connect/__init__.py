"""Connecting to a service's targets: resolving, failover, source address, deadlines."""

from culvert.connect.connector import Connector, Permit, TargetState
from culvert.connect.endpoint import Endpoint, Source
from culvert.connect.preparation import Targets, prepare
from culvert.connect.upkeep import Upkeep

__all__ = ["Connector", "Endpoint", "Permit", "Source", "TargetState", "Targets", "Upkeep", "prepare"]
