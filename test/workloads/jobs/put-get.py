"""Puts a file of random bytes into HDFS and gets it back; arguments: megabytes, path. Its last line is JSON."""

import hashlib
import json
import os
import subprocess
import sys
import time


def checksum(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dfs(*args):
    """Seconds of `hdfs dfs …`, Java's start included."""
    began = time.monotonic()
    subprocess.run(["hdfs", "dfs", *args], check=True, stdout=sys.stderr)
    return time.monotonic() - began


megabytes, there = int(sys.argv[1]), sys.argv[2]
with open("/tmp/sent", "wb") as sent:
    for _ in range(megabytes):
        sent.write(os.urandom(1 << 20))
start_seconds = dfs("-ls", "/")
put_seconds = dfs("-put", "-f", "/tmp/sent", there)
get_seconds = dfs("-get", there, "/tmp/got")
print(
    json.dumps(
        {
            "startSeconds": start_seconds,
            "putSeconds": put_seconds,
            "getSeconds": get_seconds,
            "same": checksum("/tmp/sent") == checksum("/tmp/got"),
        }
    )
)
