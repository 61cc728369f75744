// SPDX-License-Identifier: Apache-2.0
#include "load.h"
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define BPF_FS 0xcafe4a11 /* BPF_FS_MAGIC */

struct map maps[ITEMS];
struct program programs[ITEMS];
int map_count, program_count;

int mount_at(const char *dir) {
  struct statfs fs;
  char parent[PATH_MAX];
  snprintf(parent, sizeof parent, "%s", dir);
  char *slash = strrchr(parent, '/');
  if (!slash || slash == parent) return -EINVAL;
  *slash = 0;
  if (mkdir(parent, 0700) && errno != EEXIST) return -errno;
  if (statfs(parent, &fs)) return -errno;
  if ((__u32)fs.f_type != BPF_FS && mount("bpf", parent, "bpf", 0, "mode=0700")) return -errno;
  return mkdir(dir, 0700) && errno != EEXIST ? -errno : 0;
}

/* A pinned map of another shape is let go: programs that run with it keep it until they are replaced. */
static void drop_unlike(struct bpf_map *map, const char *path) {
  struct bpf_map_info info = {};
  __u32 size = sizeof info;
  int fd = bpf_obj_get(path);
  if (fd < 0) return;
  bool same = bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.type == bpf_map__type(map) &&
              info.key_size == bpf_map__key_size(map) && info.value_size == bpf_map__value_size(map) &&
              info.max_entries == bpf_map__max_entries(map) && info.map_flags == bpf_map__map_flags(map);
  close(fd);
  if (!same) unlink(path);
}

struct identity {
  struct bpf_prog_info info;
  __u32 ids[ITEMS];
};

static bool identify(int fd, struct identity *it) {
  __u32 size = sizeof it->info;
  memset(it, 0, sizeof *it);
  it->info.nr_map_ids = ITEMS;
  it->info.map_ids = (__u64)(unsigned long)it->ids;
  return bpf_obj_get_info_by_fd(fd, &it->info, &size) == 0;
}

/* The same instructions over the same maps. */
static bool alike(const struct identity *a, const struct identity *b) {
  if (memcmp(a->info.tag, b->info.tag, sizeof a->info.tag) || a->info.nr_map_ids != b->info.nr_map_ids) return false;
  for (__u32 i = 0; i < a->info.nr_map_ids && i < ITEMS; i++) {
    bool found = false;
    for (__u32 j = 0; j < b->info.nr_map_ids && j < ITEMS; j++) found |= a->ids[i] == b->ids[j];
    if (!found) return false;
  }
  return true;
}

/* Takes over the pinned program if it is the same as the one just loaded, else pins that in its place. */
static int take_program(struct bpf_program *loaded, const char *dir) {
  struct program *p = &programs[program_count];
  struct identity now, before;
  char path[PATH_MAX];
  int fd = bpf_program__fd(loaded);
  snprintf(p->name, sizeof p->name, "%s", bpf_program__name(loaded));
  snprintf(path, sizeof path, "%s/program_%s", dir, p->name);
  if (!identify(fd, &now)) return -errno;
  int pinned = bpf_obj_get(path);
  if (pinned >= 0 && identify(pinned, &before) && alike(&now, &before)) {
    p->fd = pinned;
    p->id = before.info.id;
  } else {
    if (pinned >= 0) close(pinned);
    if (unlink(path) && errno != ENOENT) return -errno;
    if (bpf_obj_pin(fd, path)) return -errno;
    p->fd = dup(fd);
    p->id = now.info.id;
  }
  program_count++;
  return p->fd < 0 ? -errno : 0;
}

static bool is_loaded(const char *pin) {
  for (int i = 0; i < map_count; i++)
    if (strncmp(pin, "map_", 4) == 0 && strcmp(pin + 4, maps[i].name) == 0) return true;
  for (int i = 0; i < program_count; i++)
    if (strncmp(pin, "program_", 8) == 0 && strcmp(pin + 8, programs[i].name) == 0) return true;
  return false;
}

/* Pins of another object, or of an older version: what still runs with them keeps them. */
static int drop_others(const char *dir) {
  char path[PATH_MAX];
  DIR *open = opendir(dir);
  if (!open) return -errno;
  for (struct dirent *at; (at = readdir(open));) {
    if (at->d_name[0] == '.' || is_loaded(at->d_name)) continue;
    snprintf(path, sizeof path, "%s/%s", dir, at->d_name);
    unlink(path);
  }
  closedir(open);
  return 0;
}

void forget(void) {
  while (map_count > 0) close(maps[--map_count].fd);
  while (program_count > 0) close(programs[--program_count].fd);
}

int take_over(struct bpf_object *object, const char *dir) {
  struct bpf_map *map;
  struct bpf_program *program;
  char path[PATH_MAX];
  bpf_object__for_each_map(map, object) {
    snprintf(path, sizeof path, "%s/map_%s", dir, bpf_map__name(map));
    drop_unlike(map, path);
    int error = bpf_map__set_pin_path(map, path);
    if (error) return error;
  }
  int error = bpf_object__load(object);
  if (error) return error;
  bpf_object__for_each_map(map, object) {
    if (map_count == ITEMS) return -E2BIG;
    struct map *m = &maps[map_count++];
    *m = (struct map){ .fd = dup(bpf_map__fd(map)), .key = bpf_map__key_size(map), .value = bpf_map__value_size(map),
                       .max = bpf_map__max_entries(map), .type = bpf_map__type(map) };
    snprintf(m->name, sizeof m->name, "%s", bpf_map__name(map));
    if (m->fd < 0) return -errno;
    if (m->key > KEY_MAX || m->value > VALUE_MAX) return -E2BIG;
  }
  bpf_object__for_each_program(program, object) {
    if (program_count == ITEMS) return -E2BIG;
    if ((error = take_program(program, dir))) return error;
  }
  return drop_others(dir);
}
