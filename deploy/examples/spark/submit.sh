#!/bin/sh
# submit.sh NAME ARGUMENTS…: a driver, on any host; what follows its name goes to spark-submit.
# Executors call the driver back, by its name, at a port of its choice: nothing is published for that.
name=$1
shift
docker run --rm --name "$name" --hostname "$name" --network "${NETWORK:-data}" \
  --memory "${MEMORY:-2g}" ${DOCKER_OPTIONS:-} \
  "${IMAGE:-apache/spark:3.5.1}" \
  /opt/spark/bin/spark-submit --master spark://spark-master:7077 \
  --conf "spark.driver.host=$name" --conf spark.driver.bindAddress=0.0.0.0 "$@"
