"""Spark writes rows to HDFS and reads them again; argument: rows. Its last line is JSON."""

import json
import sys
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

PLACE = "hdfs://namenode:8020/rows"

rows = int(sys.argv[1])
spark = SparkSession.builder.appName("files").getOrCreate()

began = time.monotonic()
text = F.sha2(F.col("id").cast("string"), 256)
spark.range(rows, numPartitions=4).select("id", text.alias("text")).write.mode("overwrite").csv(PLACE)
write_seconds = time.monotonic() - began

began = time.monotonic()
read = spark.read.schema("id long, text string").csv(PLACE)
wrong = F.sum((F.col("text") != text).cast("long"))
count, ids, wrong = read.agg(F.count("*"), F.sum("id"), wrong).first()
read_seconds = time.monotonic() - began

spark.stop()
right = count == rows and ids == rows * (rows - 1) // 2 and wrong == 0
print(json.dumps({"writeSeconds": write_seconds, "readSeconds": read_seconds, "right": right}))
