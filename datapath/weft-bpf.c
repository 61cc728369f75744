// SPDX-License-Identifier: Apache-2.0
/*
 * weft-bpf: the agent's hand in the kernel. One request a line on stdin, fields separated by blanks, keys and values in hex; each
 * answer is data lines (if the request has any), then `ok …` or `error TEXT`. Ends when stdin closes; programs stay attached and maps
 * pinned. Memory is fixed: nothing grows with what is asked.
 *
 *   load OBJECT DIR         mounts a BPF file system at DIR's parent where none is, takes over the maps and programs pinned in DIR that
 *                           are as in OBJECT, replaces the others, and lets go of what else is there → ok PROGRAM=ID …
 *   maps                    NAME KEY-BYTES VALUE-BYTES MAX-ENTRIES, a line each
 *   batch N                 then N lines `u MAP KEY VALUE` or `d MAP KEY` → ok, or the first failure; the others are made all the same
 *   lookup MAP KEY          → ok VALUE, or ok - when it is not there
 *   dump MAP                KEY VALUE, a line each
 *   sum MAP                 of a per-CPU map: KEY and the sums of the value's 64-bit numbers, a line each
 *   attach IFINDEX HOOK PROGRAM  clsact, HOOK ingress or egress, direct action, our priority and handle; replaces what is there → ok ID
 *   detach IFINDEX HOOK     → ok
 *   attached HOOK IFINDEX…  → ok ID… ; 0 = none, - = no such link
 *   links NAME…             → ok IFINDEX… ; 0 = no such link
 *   complete NAME           frames leave that link with their checksums and cut to its MTU (as `ethtool -K NAME tx off`) → ok
 *   run PROGRAM FRAME [IFINDEX]   BPF_PROG_TEST_RUN → ok RETVAL FRAME
 */
#include "load.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE_MAX_BYTES (192 * 1024)
#define FRAME_MAX (64 * 1024)
#define FIELDS 4096
#define CPUS_MAX 1024
#define TC_PRIORITY 1
#define TC_HANDLE 1

static char line[LINE_MAX_BYTES];
static char *fields[FIELDS];
static unsigned char frame_in[FRAME_MAX], frame_out[FRAME_MAX + 256];
static char said[1200];

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

/* The end of what libbpf says: of a program that is refused, the verifier's last words. */
static int keep(enum libbpf_print_level level, const char *format, va_list list) {
  static char text[256 * 1024];
  if (level == LIBBPF_DEBUG || level == LIBBPF_INFO) return 0;
  vsnprintf(text, sizeof text, format, list);
  size_t more = strlen(text), had = strlen(said), room = sizeof said - 1;
  if (more > room) memmove(text, text + more - room, room + 1), more = room;
  if (had + more > room) memmove(said, said + had + more - room, room - more), had = room - more;
  memcpy(said + had, text, more + 1);
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

static bool hook_of(const char *text, enum bpf_tc_attach_point *point) {
  bool in = strcmp(text, "ingress") == 0;
  *point = in ? BPF_TC_INGRESS : BPF_TC_EGRESS;
  return in || strcmp(text, "egress") == 0;
}

/* @returns the id of the program at our place of a link; 0 = none, -1 = no such link. */
static long attached(__u32 ifindex, enum bpf_tc_attach_point point) {
  DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = point);
  DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = TC_PRIORITY);
  int error = bpf_tc_query(&hook, &opts);
  if (error == -ENODEV) return -1;
  return error ? 0 : (long)opts.prog_id;
}

static void attach(const char *link, const char *at, const char *name) {
  __u32 ifindex;
  enum bpf_tc_attach_point point;
  struct program *p = program_of(name);
  if (!number(link, &ifindex) || !hook_of(at, &point) || !p) return fail("no such program, or wrong ifindex or hook");
  DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = point);
  DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = TC_PRIORITY, .prog_fd = p->fd, .flags = BPF_TC_F_REPLACE);
  int error = attached(ifindex, point) == (long)p->id ? 0 : bpf_tc_hook_create(&hook);
  if (error == -EEXIST) error = 0;
  if (!error && attached(ifindex, point) != (long)p->id) error = bpf_tc_attach(&hook, &opts);
  if (error) return fail("%s not attached to link %u: %s", name, ifindex, strerror(-error));
  printf("ok %u\n", p->id);
}

static void detach(const char *link, const char *at) {
  __u32 ifindex;
  enum bpf_tc_attach_point point;
  if (!number(link, &ifindex) || !hook_of(at, &point)) return fail("wrong ifindex or hook");
  DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = point);
  DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = TC_PRIORITY);
  int error = attached(ifindex, point) > 0 ? bpf_tc_detach(&hook, &opts) : 0;
  if (error && error != -ENOENT && error != -ENODEV) return fail("%s", strerror(-error));
  printf("ok\n");
}

static void list_attached(int count) {
  __u32 ifindex;
  enum bpf_tc_attach_point point;
  if (!hook_of(fields[1], &point)) return fail("wrong hook");
  for (int i = 2; i < count; i++)
    if (!number(fields[i], &ifindex)) return fail("wrong ifindex");
  printf("ok");
  for (int i = 2; i < count; i++) {
    number(fields[i], &ifindex);
    long id = attached(ifindex, point);
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

static void list_links(int count) {
  printf("ok");
  for (int i = 1; i < count; i++) printf(" %u", if_nametoindex(fields[i]));
  printf("\n");
}

/* SIOCETHTOOL (ethtool(8)): without checksum offload there is no segmentation offload either. */
static void complete(const char *name) {
  struct ethtool_value off = {.cmd = ETHTOOL_STXCSUM, .data = 0};
  struct ifreq request = {.ifr_data = (void *)&off};
  if (strlen(name) >= IFNAMSIZ) return fail("no such link: %.40s", name);
  strcpy(request.ifr_name, name);
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int error = fd < 0 || ioctl(fd, SIOCETHTOOL, &request) ? errno : 0;
  if (fd >= 0) close(fd);
  if (error) return fail("%s keeps its offloads: %s", name, strerror(error));
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
  else if (strcmp(what, "attach") == 0 && count == 4) attach(fields[1], fields[2], fields[3]);
  else if (strcmp(what, "detach") == 0 && count == 3) detach(fields[1], fields[2]);
  else if (strcmp(what, "attached") == 0 && count >= 3) list_attached(count);
  else if (strcmp(what, "links") == 0 && count >= 2) list_links(count);
  else if (strcmp(what, "complete") == 0 && count == 2) complete(fields[1]);
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
