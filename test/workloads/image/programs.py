#!/usr/bin/python3
"""The programs of the image, called by the name of the link: start (the entry point), hdfs, cassandra, nodetool.

Settings come from the environment, under the names that the images apache/hadoop and cassandra use, so that the
same command lines (deploy/examples) run with those.
"""

import os
import re
import socket
import string
import subprocess
import sys
from xml.sax.saxutils import escape

HADOOP_CONF = "/opt/hadoop/etc/hadoop"
HADOOP_CLASSES = {
    "namenode": "org.apache.hadoop.hdfs.server.namenode.NameNode",
    "datanode": "org.apache.hadoop.hdfs.server.datanode.DataNode",
    "dfs": "org.apache.hadoop.fs.FsShell",
    "fsck": "org.apache.hadoop.hdfs.tools.DFSck",
    "dfsadmin": "org.apache.hadoop.hdfs.tools.DFSAdmin",
}

CASSANDRA_CONF = "/opt/cassandra/conf"
# Of Cassandra's own conf/jvm17-server.options.
EXPORTS = (
    "java.base/jdk.internal.misc java.base/java.lang.ref java.base/jdk.internal.ref java.base/sun.nio.ch "
    "java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry java.rmi/sun.rmi.server "
    "java.sql/java.sql jdk.unsupported/sun.misc jdk.attach/sun.tools.attach"
).split()
OPENS = (
    "java.base/java.lang.module java.base/jdk.internal.loader java.base/jdk.internal.ref "
    "java.base/jdk.internal.reflect java.base/jdk.internal.math java.base/jdk.internal.module "
    "java.base/jdk.internal.util.jar java.base/sun.nio.ch java.base/java.io java.base/java.lang "
    "java.base/java.lang.reflect java.base/java.util java.base/java.nio jdk.management/com.sun.management.internal"
).split()


def java(*args):
    os.execvp("java", ["java", *args])


def start(args):
    """Writes Hadoop's files, then becomes what it is told."""
    write_hadoop_files()
    os.execvp(args[0], args)


def write_hadoop_files():
    """CORE-SITE.XML_fs.defaultFS=… in the environment is the property fs.defaultFS of core-site.xml."""
    files = {"core-site.xml": {}, "hdfs-site.xml": {}}
    for name, value in os.environ.items():
        match = re.fullmatch(r"(CORE|HDFS)-SITE\.XML_(.+)", name)
        if match:
            files[f"{match[1].lower()}-site.xml"][match[2]] = value
    for name, properties in files.items():
        lines = [
            f"<property><name>{escape(key)}</name><value>{escape(value)}</value></property>"
            for key, value in sorted(properties.items())
        ]
        with open(f"{HADOOP_CONF}/{name}", "w", encoding="utf-8") as file:
            file.write("\n".join(["<configuration>", *lines, "</configuration>", ""]))


def hdfs(args):
    tool, *rest = args
    heap = os.environ.get("HADOOP_HEAPSIZE_MAX", "256m")
    command = [f"-Xmx{heap}", "-cp", f"{HADOOP_CONF}:/opt/hadoop/lib/*", HADOOP_CLASSES[tool], *rest]
    names = os.environ.get("ENSURE_NAMENODE_DIR")
    if tool == "namenode" and names and not os.path.isdir(names):
        subprocess.run(["java", *command, "-format", "-nonInteractive"], check=True)
    java(*command)


def cassandra(_args):
    own = socket.gethostbyname(socket.gethostname())
    listen = os.environ.get("CASSANDRA_LISTEN_ADDRESS", "auto").replace("auto", own)
    settings = {
        "CASSANDRA_CLUSTER_NAME": "Test Cluster",
        "CASSANDRA_NUM_TOKENS": "16",
        "CASSANDRA_SEEDS": own,
        "CASSANDRA_BROADCAST_ADDRESS": listen,
        "CASSANDRA_ENDPOINT_SNITCH": "SimpleSnitch",
        "CASSANDRA_DC": "dc1",
        "CASSANDRA_RACK": "rack1",
        **os.environ,
        "CASSANDRA_LISTEN_ADDRESS": listen,
    }
    path = f"{CASSANDRA_CONF}/cassandra.yaml"
    with open(f"{path}.in", encoding="utf-8") as file:
        text = string.Template(file.read()).substitute(settings)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    with open(f"{CASSANDRA_CONF}/cassandra-rackdc.properties", "w", encoding="utf-8") as file:
        file.write(f"dc={settings['CASSANDRA_DC']}\nrack={settings['CASSANDRA_RACK']}\n")
    heap = os.environ.get("MAX_HEAP_SIZE", "320m")
    java(
        f"-Xms{heap}",
        f"-Xmx{heap}",
        "-XX:MaxDirectMemorySize=96m",
        "-Xss512k",
        "-Djdk.attach.allowAttachSelf=true",
        *modules(),
        "-javaagent:/opt/cassandra/lib/jamm-0.4.0.jar",
        "-Dio.netty.tryReflectionSetAccessible=true",
        "-Dcassandra.jmx.local.port=7199",
        "-Dcassandra.storagedir=/var/lib/cassandra",
        f"-Dcassandra.config=file://{path}",
        f"-Dlogback.configurationFile={CASSANDRA_CONF}/logback.xml",
        "-Dcassandra-foreground=yes",
        *os.environ.get("JVM_EXTRA_OPTS", "").split(),
        *classes("org.apache.cassandra.service.CassandraDaemon"),
    )


def nodetool(args):
    log = f"-Dlogback.configurationFile={CASSANDRA_CONF}/logback-tools.xml"
    quick = ["-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    java(*quick, *modules(), log, *classes("org.apache.cassandra.tools.NodeTool"), "-h", "127.0.0.1", *args)


def modules():
    pairs = [("--add-exports", name) for name in EXPORTS] + [("--add-opens", name) for name in OPENS]
    return [word for option, name in pairs for word in (option, f"{name}=ALL-UNNAMED")]


def classes(main):
    return ["-cp", f"{CASSANDRA_CONF}:/opt/cassandra/lib/*", main]


if __name__ == "__main__":
    programs = {"start": start, "hdfs": hdfs, "cassandra": cassandra, "nodetool": nodetool}
    programs[os.path.basename(sys.argv[0])](sys.argv[1:])
