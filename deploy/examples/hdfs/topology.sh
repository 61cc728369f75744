#!/bin/sh
# Told addresses by the NameNode, says the rack of each: the one of RACKS (r1,r2,…) whose alias rack-NAME leads to the address.
# Every DataNode has the alias of its host's rack; Weft's resolver knows those of all hosts.
known=$(
  for rack in $(echo "$RACKS" | tr , ' '); do
    getent ahosts "rack-$rack.$NETWORK.weft" | sed "s|[[:space:]].*| /$rack|"
  done
)
for address; do
  rack=$(echo "$known" | awk -v address="$address" '$1 == address { print $2; exit }')
  echo "${rack:-/default-rack}"
done
