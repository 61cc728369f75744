/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What became of frames. */
#pragma once
#include "maps.h"

static __always_inline int count_by(__u32 reason, __u64 n, int verdict) {
  __u64 *counter = bpf_map_lookup_elem(&reasons, &reason);
  if (counter) *counter += n;
  return verdict;
}

static __always_inline int count(__u32 reason, int verdict) { return count_by(reason, 1, verdict); }
