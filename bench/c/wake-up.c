/*
 * Two eventfds, 3 and 4. `client N IDLE`: signals 3 and waits for 4, N times, asleep IDLE microseconds before each; prints p50 and p99
 * in microseconds. `server N`: waits for 3 and signals 4, N times: a poll loop, as C programs wait.
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void take(int fd) {
  struct pollfd readable = {.fd = fd, .events = POLLIN};
  uint64_t count;
  while (read(fd, &count, 8) != 8) poll(&readable, 1, -1);
}

static void await(int fd) {
  struct pollfd readable = {.fd = fd, .events = POLLIN};
  uint64_t count;
  do poll(&readable, 1, -1);
  while (read(fd, &count, 8) != 8);
}

static void put(int fd) {
  uint64_t one = 1;
  if (write(fd, &one, 8) != 8) exit(1);
}

int main(int argc, char **argv) {
  long count = argc > 2 ? atol(argv[2]) : 0;
  if (argc > 2 && strcmp(argv[1], "server") == 0) {
    for (long i = 0; i < count; i++) {
      await(3);
      put(4);
    }
    return 0;
  }
  long idle = argc > 3 ? atol(argv[3]) : 0;
  double *times = calloc(count, sizeof *times);
  for (long i = 0; i < count; i++) {
    if (idle > 0) usleep(idle);
    double start = now();
    put(3);
    take(4);
    times[i] = now() - start;
  }
  qsort(times, count, sizeof *times, ascending);
  printf("%.2f %.2f\n", times[count / 2], times[count * 99 / 100]);
  return 0;
}
