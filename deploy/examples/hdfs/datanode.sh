#!/bin/sh
# datanode.sh NAME: a DataNode, on any host; the name (datanode-1, say) is used once in the network.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../rack.sh"
docker run -d --name "$1" --hostname "$1" --network "${NETWORK:-data}" \
  ${RACK:+--network-alias "rack-$RACK"} \
  --memory "${MEMORY:-2g}" -v "hdfs-$1:/data" --user root \
  --env-file "$here/hdfs.env" ${DOCKER_OPTIONS:-} \
  "${IMAGE:-apache/hadoop:3}" hdfs datanode
