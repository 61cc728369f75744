/* SPDX-License-Identifier: Apache-2.0 */
/* Loading an object: which pinned maps and programs are taken over, which are replaced. Errors are negative errno. */
#pragma once
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <stdbool.h>

#define ITEMS 32
#define KEY_MAX 64
#define VALUE_MAX 256

struct map {
  char name[BPF_OBJ_NAME_LEN];
  int fd;
  __u32 key, value, max, type;
};
struct program {
  char name[64];
  int fd;
  __u32 id;
};

/* Of the object that is loaded. */
extern struct map maps[ITEMS];
extern struct program programs[ITEMS];
extern int map_count, program_count;

/* Makes `dir`, mounting a BPF file system at its parent where none is. */
int mount_at(const char *dir);
/* Loads the object; maps and programs pinned in `dir` that are as in it stay, others are replaced, and what the object has not is let go. */
int take_over(struct bpf_object *object, const char *dir);
/* Closes what is open. */
void forget(void);
