#!/bin/sh
# The NameNode, on any host. Its page: http://HOST:9870. RACKS=r1,r2,…: the racks that DataNodes are in, for it to place replicas by.
here=$(cd "$(dirname "$0")" && pwd)
topology=/usr/local/bin/topology.sh
docker run -d --name namenode --hostname namenode --network "${NETWORK:-data}" \
  --memory "${MEMORY:-2g}" -p 9870:9870 -v hdfs-namenode:/data --user root \
  ${RACKS:+-e "RACKS=$RACKS" -e "NETWORK=${NETWORK:-data}" -v "$here/topology.sh:$topology:ro"} \
  ${RACKS:+-e "CORE-SITE.XML_net.topology.script.file.name=$topology"} \
  --env-file "$here/hdfs.env" -e ENSURE_NAMENODE_DIR=/data/name ${DOCKER_OPTIONS:-} \
  "${IMAGE:-apache/hadoop:3}" hdfs namenode
