// SPDX-License-Identifier: Apache-2.0
/*
 * weft-bpf: the agent's hand in the kernel. One request a line on stdin, fields separated by blanks, keys and values in hex; each
 * answer is data lines (if the request has any), then `ok …` or `error TEXT`. Ends when stdin closes; programs stay attached and maps
 * pinned. Memory is fixed: nothing grows with what is asked.
 *
 *   load OBJECT DIR         mounts a BPF file system at DIR's parent where none is, takes over the maps and programs pinned in DIR that
 *                           are as in OBJECT, replaces the others → ok PROGRAM=ID …
 *   maps                    NAME KEY-BYTES VALUE-BYTES MAX-ENTRIES, a line each
 *   batch N                 then N lines `u MAP KEY VALUE` or `d MAP KEY` → ok, or the first failure; the others are made all the same
 *   lookup MAP KEY          → ok VALUE, or ok - when it is not there
 *   dump MAP                KEY VALUE, a line each
 *   sum MAP                 of a per-CPU map: KEY and the sums of the value's 64-bit numbers, a line each
 *   attach IFINDEX PROGRAM  clsact ingress, direct action, our priority and handle; replaces what is there → ok ID
 *   detach IFINDEX          → ok
 *   attached IFINDEX…       → ok ID… ; 0 = none, - = no such link
 *   run PROGRAM FRAME [IFINDEX]   BPF_PROG_TEST_RUN → ok RETVAL FRAME
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define LINE_MAX_BYTES (192 * 1024)
#define FRAME_MAX (64 * 1024)
#define ITEMS 32
#define FIELDS 4096
#define KEY_MAX 64
#define VALUE_MAX 256
#define CPUS_MAX 1024
#define BPF_FS 0xcafe4a11
#define TC_PRIORITY 1
#define TC_HANDLE 1

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

static struct map maps[ITEMS];
static struct program programs[ITEMS];
static int map_count, program_count;
static char line[LINE_MAX_BYTES];
static char *fields[FIELDS];
static unsigned char frame_in[FRAME_MAX], frame_out[FRAME_MAX + 256];
static char said[1024];

static void fail(const char *format, ...) {
  char text[1500];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  for (char *c = text; *c; c++)
    if ((unsigned char)*c < ' ') *c = ' ';
  printf("error %s\n", text);
}

/* The end of what libbpf said last: of a program that is refused, the verifier's last words. */
static int keep(enum libbpf_print_level level, const char *format, va_list list) {
  static char text[256 * 1024];
  if (level == LIBBPF_DEBUG || level == LIBBPF_INFO) return 0;
  int n = vsnprintf(text, sizeof text, format, list);
  if (n >= (int)sizeof text) n = sizeof text - 1;
  if (n > 0) snprintf(said, sizeof said, "%s", text + (n > 1000 ? n - 1000 : 0));
  return 0;
}

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

/* @returns bytes read, -1 when it is no hex or does not fit. */
static int unhex(const char *text, unsigned char *out, size_t size) {
  size_t n = 0;
  for (; text[0]; text += 2, n++) {
    int high = digit(text[0]), low = high < 0 ? -1 : digit(text[1]);
    if (low < 0 || n >= size) return -1;
    out[n] = high << 4 | low;
  }
  return n;
}

static void hex(const unsigned char *bytes, size_t n) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < n; i++) {
    putchar_unlocked(digits[bytes[i] >> 4]);
    putchar_unlocked(digits[bytes[i] & 15]);
  }
}

static struct map *map_of(const char *name) {
  for (int i = 0; i < map_count; i++)
    if (strcmp(maps[i].name, name) == 0) return &maps[i];
  return NULL;
}

static struct program *program_of(const char *name) {
  for (int i = 0; i < program_count; i++)
    if (strcmp(programs[i].name, name) == 0) return &programs[i];
  return NULL;
}

static bool number(const char *text, __u32 *out) {
  char *end;
  errno = 0;
  unsigned long n = strtoul(text, &end, 10);
  *out = n;
  return isdigit((unsigned char)*text) && !*end && !errno && n <= 0xffffffffUL;
}

static int mount_at(const char *dir) {
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

static void forget(void) {
  while (map_count > 0) close(maps[--map_count].fd);
  while (program_count > 0) close(programs[--program_count].fd);
}

static int take_over(struct bpf_object *object, const char *dir) {
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
  return 0;
}

static void load(const char *file, const char *dir) {
  forget();
  said[0] = 0;
  int error = mount_at(dir);
  if (error) return fail("no BPF file system at %s: %s", dir, strerror(-error));
  struct bpf_object *object = bpf_object__open_file(file, NULL);
  if (!object) return fail("%s cannot be read: %s", file, strerror(errno));
  error = take_over(object, dir);
  bpf_object__close(object);
  if (error) {
    forget();
    return fail("%s cannot be loaded: %s: %s", file, strerror(-error), said);
  }
  printf("ok");
  for (int i = 0; i < program_count; i++) printf(" %s=%u", programs[i].name, programs[i].id);
  printf("\n");
}

static bool read_key(const struct map *m, const char *text, unsigned char *key) {
  return unhex(text, key, KEY_MAX) == (int)m->key;
}

/* @returns NULL, or what is wrong. */
static const char *change(int count) {
  unsigned char key[KEY_MAX], value[VALUE_MAX];
  bool update = count == 4 && strcmp(fields[0], "u") == 0;
  if (!update && !(count == 3 && strcmp(fields[0], "d") == 0)) return "not understood";
  struct map *m = map_of(fields[1]);
  if (!m) return "no such map";
  if (!read_key(m, fields[2], key)) return "wrong key";
  if (!update) return bpf_map_delete_elem(m->fd, key) && errno != ENOENT ? strerror(errno) : NULL;
  if (unhex(fields[3], value, sizeof value) != (int)m->value) return "wrong value";
  return bpf_map_update_elem(m->fd, key, value, BPF_ANY) ? strerror(errno) : NULL;
}

static void lookup(const char *name, const char *text) {
  unsigned char key[KEY_MAX], value[VALUE_MAX];
  struct map *m = map_of(name);
  if (!m || !read_key(m, text, key)) return fail("no such map, or wrong key");
  if (m->type == BPF_MAP_TYPE_PERCPU_ARRAY || m->type == BPF_MAP_TYPE_PERCPU_HASH) return fail("a per-CPU map: use sum");
  if (bpf_map_lookup_elem(m->fd, key, value)) {
    if (errno != ENOENT) return fail("%s", strerror(errno));
    printf("ok -\n");
    return;
  }
  printf("ok ");
  hex(value, m->value);
  printf("\n");
}

static void print_sums(const unsigned char *values, const struct map *m, int cpus) {
  __u32 stride = (m->value + 7) / 8 * 8;
  for (__u32 at = 0; at + 8 <= m->value; at += 8) {
    unsigned long long sum = 0;
    for (int cpu = 0; cpu < cpus; cpu++) sum += *(const __u64 *)(values + cpu * stride + at);
    printf(" %llu", sum);
  }
}

/* A key that is deleted meanwhile starts the kernel's walk anew: bounded, and the reader keeps what it read last. */
static void dump(const char *name, bool sums) {
  static unsigned char values[CPUS_MAX * VALUE_MAX] __attribute__((aligned(8)));
  unsigned char key[KEY_MAX], next[KEY_MAX];
  struct map *m = map_of(name);
  if (!m) return fail("no such map");
  bool per_cpu = m->type == BPF_MAP_TYPE_PERCPU_ARRAY || m->type == BPF_MAP_TYPE_PERCPU_HASH;
  int cpus = per_cpu ? libbpf_num_possible_cpus() : 1;
  if (per_cpu != sums) return fail(per_cpu ? "a per-CPU map: use sum" : "not a per-CPU map: use dump");
  if (cpus < 1 || cpus > CPUS_MAX) return fail("%d CPUs", cpus);
  __u64 walked = 0;
  bool first = true;
  while (bpf_map_get_next_key(m->fd, first ? NULL : key, next) == 0) {
    memcpy(key, next, m->key);
    first = false;
    if (++walked > 2ULL * m->max + 1) return fail("the map changes too fast to be read");
    if (bpf_map_lookup_elem(m->fd, key, values)) continue;
    hex(key, m->key);
    if (sums) print_sums(values, m, cpus);
    else {
      putchar(' ');
      hex(values, m->value);
    }
    putchar('\n');
  }
  if (errno != ENOENT) return fail("%s", strerror(errno));
  printf("ok\n");
}

/* @returns the id of the program at our place of a link; 0 = none, -1 = no such link. */
static long attached(__u32 ifindex) {
  DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS);
  DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = TC_PRIORITY);
  int error = bpf_tc_query(&hook, &opts);
  if (error == -ENODEV) return -1;
  return error ? 0 : (long)opts.prog_id;
}

static void attach(const char *link, const char *name) {
  __u32 ifindex;
  struct program *p = program_of(name);
  if (!number(link, &ifindex) || !p) return fail("no such program, or wrong ifindex");
  DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS);
  DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = TC_PRIORITY, .prog_fd = p->fd, .flags = BPF_TC_F_REPLACE);
  int error = attached(ifindex) == (long)p->id ? 0 : bpf_tc_hook_create(&hook);
  if (error == -EEXIST) error = 0;
  if (!error && attached(ifindex) != (long)p->id) error = bpf_tc_attach(&hook, &opts);
  if (error) return fail("%s not attached to link %u: %s", name, ifindex, strerror(-error));
  printf("ok %u\n", p->id);
}

static void detach(const char *link) {
  __u32 ifindex;
  if (!number(link, &ifindex)) return fail("wrong ifindex");
  DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS);
  DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = TC_PRIORITY);
  int error = attached(ifindex) > 0 ? bpf_tc_detach(&hook, &opts) : 0;
  if (error && error != -ENOENT && error != -ENODEV) return fail("%s", strerror(-error));
  printf("ok\n");
}

static void list_attached(int count) {
  __u32 ifindex;
  for (int i = 1; i < count; i++)
    if (!number(fields[i], &ifindex)) return fail("wrong ifindex");
  printf("ok");
  for (int i = 1; i < count; i++) {
    number(fields[i], &ifindex);
    long id = attached(ifindex);
    if (id < 0) printf(" -");
    else printf(" %ld", id);
  }
  printf("\n");
}

static void run(const char *name, const char *text, const char *link) {
  struct __sk_buff context = {};
  struct program *p = program_of(name);
  int size = unhex(text, frame_in, sizeof frame_in);
  if (!p || size < 0 || (link && !number(link, &context.ifindex))) return fail("no such program, or wrong frame or ifindex");
  DECLARE_LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame_in, .data_size_in = size, .data_out = frame_out,
                      .data_size_out = sizeof frame_out, .ctx_in = &context, .ctx_size_in = sizeof context, .repeat = 1);
  if (bpf_prog_test_run_opts(p->fd, &opts)) return fail("not run: %s", strerror(errno));
  printf("ok %u ", opts.retval);
  hex(frame_out, opts.data_size_out);
  printf("\n");
}

/* Reads a line into fields. @returns their number, 0 for none, -1 for a line that is too long, -2 at the end of input. */
static int read_line(void) {
  if (!fgets(line, sizeof line, stdin)) return -2;
  if (!strchr(line, '\n') && !feof(stdin)) {
    for (int c = getchar(); c != '\n' && c != EOF;) c = getchar();
    return -1;
  }
  int count = 0;
  char *rest = line, *field;
  while ((field = strsep(&rest, " \t\r\n"))) {
    if (!*field) continue;
    if (count == FIELDS) return -1;
    fields[count++] = field;
  }
  return count;
}

static void batch(__u32 n) {
  char first[200] = "";
  __u32 failures = 0;
  for (__u32 i = 0; i < n; i++) {
    int count = read_line();
    if (count == -2) return;
    const char *wrong = count < 0 ? "too long" : change(count);
    if (wrong && failures++ == 0)
      snprintf(first, sizeof first, "%.20s %.100s: %s", count > 1 ? fields[1] : "?", count > 2 ? fields[2] : "?", wrong);
  }
  if (failures) fail("%u of %u changes failed, first %s", failures, n, first);
  else printf("ok\n");
}

static void list_maps(void) {
  for (int i = 0; i < map_count; i++) printf("%s %u %u %u\n", maps[i].name, maps[i].key, maps[i].value, maps[i].max);
  printf("ok\n");
}

static void answer(int count) {
  const char *what = fields[0];
  __u32 n;
  if (strcmp(what, "load") == 0 && count == 3) load(fields[1], fields[2]);
  else if (strcmp(what, "maps") == 0 && count == 1) list_maps();
  else if (strcmp(what, "batch") == 0 && count == 2 && number(fields[1], &n)) batch(n);
  else if (strcmp(what, "lookup") == 0 && count == 3) lookup(fields[1], fields[2]);
  else if (strcmp(what, "dump") == 0 && count == 2) dump(fields[1], false);
  else if (strcmp(what, "sum") == 0 && count == 2) dump(fields[1], true);
  else if (strcmp(what, "attach") == 0 && count == 3) attach(fields[1], fields[2]);
  else if (strcmp(what, "detach") == 0 && count == 2) detach(fields[1]);
  else if (strcmp(what, "attached") == 0 && count >= 2) list_attached(count);
  else if (strcmp(what, "run") == 0 && (count == 3 || count == 4)) run(fields[1], fields[2], count == 4 ? fields[3] : NULL);
  else fail("not understood: %.40s", what);
}

int main(void) {
  static char out[256 * 1024];
  setvbuf(stdout, out, _IOFBF, sizeof out);
  libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
  libbpf_set_print(keep);
  for (int count; (count = read_line()) != -2;) {
    if (count == -1) fail("the line is too long");
    else if (count > 0) answer(count);
    fflush(stdout);
  }
  return 0;
}
