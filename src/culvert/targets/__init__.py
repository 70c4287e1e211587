"""Connecting to a service's targets: resolving, failover, source address, deadlines."""

from culvert.targets.connector import Connector, Permit, TargetState
from culvert.targets.endpoint import Endpoint, Source
from culvert.targets.preparation import Targets, prepare
from culvert.targets.upkeep import Upkeep

__all__ = ["Connector", "Endpoint", "Permit", "Source", "TargetState", "Targets", "Upkeep", "prepare"]
