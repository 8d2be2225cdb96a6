/* Device to host: one handler counts what arrives. */
#include "machine.h"

#define ORDER 65536

struct counter {
  struct irq_handler handler;
  uint64_t seen;
};

static void count(void *self) { ((struct counter *)self)->seen++; }

static struct host host;
static struct counter counter = {{count}, 0};
static int32_t order[ORDER];

static struct irq_handler *handler_of(int device, int vector) {
  (void)device;
  (void)vector;
  return &counter.handler;
}

static void raise_each(long operations, int mask) {
  uint64_t before = counter.seen;
  for (long n = 0; n < operations; n++) function_raise(&host.functions[0], order[n & (ORDER - 1)] & mask);
  if (counter.seen - before != (uint64_t)operations) abort();
}

static void one(long operations) { raise_each(operations, 0); }
static void many(long operations) { raise_each(operations, -1); }

int main(void) {
  uint32_t state = 0x9e3779b9;
  for (int i = 0; i < ORDER; i++) order[i] = bench_random(&state) & 2047;
  host_init(&host, 1, 2048, handler_of);
  const struct bench_case cases[] = {{"host-1", one}, {"host-2048", many}};
  return bench_serve(cases, 2);
}
