"""A sort, and a groupBy that shuffles; arguments: megabytes. Its last line is JSON: seconds of each, and what came out."""

import json
import sys
import time

from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

GROUPS = 100_000

rows = int(sys.argv[1]) * 10_000  # about 100 bytes each
spark = SparkSession.builder.appName("shuffle").getOrCreate()
text = F.col("id").cast("string")
data = spark.range(rows, numPartitions=8).select(
    "id", F.hash("id").alias("key"), F.sha2(text, 256).alias("long"), F.md5(text).alias("short")
)

began = time.monotonic()
# Kept as they came out: a sort whose order nobody looks at would be optimised away.
in_order = data.orderBy("key").localCheckpoint()
sort_seconds = time.monotonic() - began
places = in_order.select(
    "key", F.spark_partition_id().alias("part"), F.monotonically_increasing_id().alias("place")
)
before = F.lag("key").over(Window.partitionBy("part").orderBy("place"))
inversions = places.withColumn("before", before).filter("before > key").count()
parts = places.groupBy("part").agg(F.min("key"), F.max("key"), F.count("*")).orderBy("part").collect()

began = time.monotonic()
groups = data.groupBy((F.col("id") % GROUPS).alias("g")).agg(
    F.count("*").alias("n"), F.sum("id").alias("ids"), F.max("long").alias("long")
)
total = groups.agg(F.count("*"), F.min("n"), F.max("n"), F.sum("ids")).first()
group_seconds = time.monotonic() - began

result = {
    "sortSeconds": sort_seconds,
    "groupSeconds": group_seconds,
    "rows": sum(part[3] for part in parts),
    "sorted": inversions == 0 and all(a[2] <= b[1] for a, b in zip(parts, parts[1:])),
    "groups": total[0],
    "groupsEven": total[1] == total[2] == rows // GROUPS,
    "idsRight": total[3] == rows * (rows - 1) // 2,
}
spark.stop()
print(json.dumps(result))
