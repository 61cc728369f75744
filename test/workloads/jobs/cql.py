"""Writes and reads rows of a table with three replicas; one line of JSON.

cql.py schema | write FROM COUNT | read FROM COUNT | latency COUNT; environment: HOSTS, names of nodes to ask; ONLY=1 to ask
no other; CONSISTENCY (QUORUM).
"""

import json
import os
import socket
import sys
import time

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.policies import RoundRobinPolicy, WhiteListRoundRobinPolicy

BYTES = 512
AT_ONCE = 16
REQUEST_SECONDS = 20

names = os.environ["HOSTS"].split(",")
only = os.environ.get("ONLY") == "1"
level = ConsistencyLevel.name_to_value[os.environ.get("CONSISTENCY", "QUORUM")]
policy = WhiteListRoundRobinPolicy([socket.gethostbyname(n) for n in names]) if only else RoundRobinPolicy()
profile = ExecutionProfile(load_balancing_policy=policy, consistency_level=level, request_timeout=REQUEST_SECONDS)
cluster = Cluster(
    names,
    execution_profiles={EXEC_PROFILE_DEFAULT: profile},
    protocol_version=5,
    connect_timeout=REQUEST_SECONDS,
    control_connection_timeout=REQUEST_SECONDS,
)
session = cluster.connect()


def value(key):
    return f"{key:08d}".encode() * (BYTES // 8)


def schema():
    session.execute(
        "CREATE KEYSPACE mesh WITH replication = {'class': 'NetworkTopologyStrategy', 'replication_factor': 3}"
    )
    session.execute("CREATE TABLE mesh.rows (key int PRIMARY KEY, value blob)")
    return {}


def many(statement, arguments):
    """Several at once. Seconds, results, errors."""
    began = time.monotonic()
    done = execute_concurrent_with_args(
        session, statement, arguments, concurrency=AT_ONCE, raise_on_first_error=False
    )
    errors = [repr(what) for ok, what in done if not ok]
    return time.monotonic() - began, [what for ok, what in done if ok], errors


def write(first, count):
    insert = session.prepare("INSERT INTO mesh.rows (key, value) VALUES (?, ?)")
    seconds, _, errors = many(insert, [(key, value(key)) for key in range(first, first + count)])
    return {"seconds": seconds, "errors": len(errors), "error": errors[:1]}


def read(first, count):
    select = session.prepare("SELECT key, value FROM mesh.rows WHERE key = ?")
    seconds, results, errors = many(select, [(key,) for key in range(first, first + count)])
    rows = [row for result in results for row in result]
    right = sum(row.value == value(row.key) for row in rows)
    return {"seconds": seconds, "errors": len(errors), "error": errors[:1], "right": right}


def latency(count):
    """One after another, milliseconds."""
    insert = session.prepare("INSERT INTO mesh.rows (key, value) VALUES (?, ?)")
    took = []
    for key in range(count):
        began = time.monotonic()
        session.execute(insert, (key, value(key)))
        took.append((time.monotonic() - began) * 1000)
    took.sort()
    return {"p50Ms": took[count // 2], "p99Ms": took[count * 99 // 100]}


commands = {"schema": schema, "write": write, "read": read, "latency": latency}
result = commands[sys.argv[1]](*map(int, sys.argv[2:]))
cluster.shutdown()
print(json.dumps(result))
