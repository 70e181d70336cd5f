"""Fixtures that several rooms' tests use."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.support.broker import broker
from tests.support.logs import client, ledger, pulsar_log
from tests.support.redis import own_redis, redis_cluster, system_redis, wheel_redis
from tests.support.sessions import connection, embedded_session, session

# Deadlines would make a slow machine fail a right result.
settings.register_profile(
    "fs-notebook", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("fs-notebook")

__all__ = [
    "broker",
    "client",
    "connection",
    "embedded_session",
    "ledger",
    "own_redis",
    "pulsar_log",
    "redis_cluster",
    "session",
    "system_redis",
    "wheel_redis",
]
