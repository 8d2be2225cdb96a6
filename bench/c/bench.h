/* The C side of a round: a line of standard input names a case and a number of operations, the answer is ns of CPU time per operation. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * A boundary: what the program calls through an interface, a driver's operations for one, is called here as if another file held it. Nothing
 * of it is inlined into the loop that measures, nor moved out of that loop. What lies behind a boundary is the compiler's to inline.
 */
#define BOUNDARY __attribute__((noipa))

struct bench_case {
  const char *name;
  void (*run)(long operations);
};

/* Keeps the compiler from dropping what computes it. */
static volatile uint64_t bench_sink;

static inline double bench_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec * 1e9 + now.tv_nsec;
}

static inline int bench_serve(const struct bench_case *cases, int count) {
  char name[64];
  long operations;
  setvbuf(stdout, NULL, _IOLBF, 0);
  while (scanf("%63s %ld", name, &operations) == 2) {
    int at = 0;
    while (at < count && strcmp(cases[at].name, name) != 0) at++;
    if (at == count) return 2;
    double start = bench_now();
    cases[at].run(operations);
    printf("%.4f\n", (bench_now() - start) / operations);
  }
  return 0;
}

/* xorshift32, as in support/rounds.mjs */
static inline uint32_t bench_random(uint32_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 17;
  *state ^= *state << 5;
  return *state;
}

static inline void bench_shuffle(int32_t *order, int count, uint32_t *state) {
  for (int i = 0; i < count; i++) order[i] = i;
  for (int i = count - 1; i > 0; i--) {
    int j = bench_random(state) % (uint32_t)(i + 1);
    int32_t kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
}

#endif
