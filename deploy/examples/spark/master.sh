#!/bin/sh
# The master of a Spark cluster, on any host. Its page: http://HOST:8080.
docker run -d --name spark-master --hostname spark-master --network "${NETWORK:-data}" \
  --memory "${MEMORY:-1g}" -p 8080:8080 ${DOCKER_OPTIONS:-} \
  "${IMAGE:-apache/spark:3.5.1}" \
  /opt/spark/bin/spark-class org.apache.spark.deploy.master.Master \
  --host spark-master --port 7077 --webui-port 8080
