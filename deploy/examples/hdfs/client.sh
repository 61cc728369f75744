#!/bin/sh
# client.sh COMMAND…: a command with HDFS at hand, on any host: client.sh hdfs dfs -ls /
here=$(dirname "$0")
docker run --rm -i --network "${NETWORK:-data}" --memory "${MEMORY:-1g}" \
  --env-file "$here/hdfs.env" ${DOCKER_OPTIONS:-} \
  "${IMAGE:-apache/hadoop:3}" "$@"
