/* Requests, registers, memory and eventfds as a C program of VFIO's would have them. */
#define _GNU_SOURCE
#include "bench.h"
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define WORDS 65536
#define STEP 40503u

static int file, event;
static volatile uint32_t *registers;
static uint32_t *memory;

static void request(long operations) {
  int left;
  for (long n = 0; n < operations; n++)
    if (ioctl(file, FIONREAD, &left)) abort();
}

static void register_read(long operations) {
  uint32_t sum = 0;
  for (long n = 0; n < operations; n++) sum += registers[n & (WORDS - 1)];
  bench_sink = sum;
}

static void register_write(long operations) {
  for (long n = 0; n < operations; n++) registers[n & (WORDS - 1)] = n;
}

static void memory_words(long operations) {
  for (long n = 0; n < operations; n++) {
    uint32_t at = (uint32_t)n * STEP & (WORDS - 1);
    memory[at] = memory[(at + 1) & (WORDS - 1)] + (uint32_t)n;
  }
}

static void signal_event(long operations) {
  for (long n = 0; n < operations; n++) {
    uint64_t count = 1;
    if (write(event, &count, 8) != 8 || read(event, &count, 8) != 8 || count != 1) abort();
  }
}

int main(void) {
  file = memfd_create("bench", MFD_CLOEXEC);
  if (ftruncate(file, WORDS * 4)) return 1;
  registers = mmap(NULL, WORDS * 4, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  memory = mmap(NULL, WORDS * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const struct bench_case cases[] = {{"request", request},
                                     {"register-read", register_read},
                                     {"register-write", register_write},
                                     {"memory", memory_words},
                                     {"array", memory_words},
                                     {"signal", signal_event}};
  return bench_serve(cases, 6);
}
