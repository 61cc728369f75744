#!/bin/sh
# The NameNode, on any host. Its page: http://HOST:9870.
here=$(dirname "$0")
docker run -d --name namenode --hostname namenode --network "${NETWORK:-data}" \
  --memory "${MEMORY:-2g}" -p 9870:9870 -v hdfs-namenode:/data --user root \
  --env-file "$here/hdfs.env" -e ENSURE_NAMENODE_DIR=/data/name ${DOCKER_OPTIONS:-} \
  "${IMAGE:-apache/hadoop:3}" hdfs namenode
