#!/bin/sh
# worker.sh NAME: a worker, on any host; the name (spark-worker-1, say) is used once in the network.
docker run -d --name "$1" --hostname "$1" --network "${NETWORK:-data}" \
  --memory "${MEMORY:-8g}" ${DOCKER_OPTIONS:-} \
  "${IMAGE:-apache/spark:3.5.1}" \
  /opt/spark/bin/spark-class org.apache.spark.deploy.worker.Worker \
  --host "$1" --cores "${CORES:-2}" --memory "${WORKER_MEMORY:-6g}" --work-dir /tmp/work \
  spark://spark-master:7077
