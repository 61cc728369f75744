#!/bin/sh
# node.sh NAME: a Cassandra node, on any host. Names: cassandra-1, cassandra-2 (the seeds), cassandra-3, …
# Start them one after another: each joins when the one before it is listed as UN by `nodetool status`.
here=$(dirname "$0")
. "$here/../rack.sh"
docker run -d --name "$1" --hostname "$1" --network "${NETWORK:-data}" \
  --memory "${MEMORY:-4g}" -v "$1:/var/lib/cassandra" \
  ${RACK:+-e CASSANDRA_ENDPOINT_SNITCH=GossipingPropertyFileSnitch -e CASSANDRA_DC="${DC:-datacenter1}" -e CASSANDRA_RACK="$RACK"} \
  -e CASSANDRA_CLUSTER_NAME="${CLUSTER:-weft}" -e CASSANDRA_SEEDS=cassandra-1,cassandra-2 \
  -e MAX_HEAP_SIZE="${HEAP:-2G}" -e HEAP_NEWSIZE="${NEW_HEAP:-400M}" ${DOCKER_OPTIONS:-} \
  "${IMAGE:-cassandra:5.0}" cassandra -f
