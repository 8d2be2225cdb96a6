/* Mapping and unmapping, in runs and page by page. */
#include "pgtable.h"

#define RUN 262144l
#define PAGES 65536

static struct memory memory;
static struct page_table table;
static int32_t order[PAGES];
static const int prot = PROT_READ | PROT_WRITE | PROT_NOEXEC;

static uint64_t scattered(int32_t i) { return 0x200000000ull + (uint64_t)i * 8192; }

static void run(long pages) {
  for (long done = 0; done < pages; done += RUN) {
    if (!page_table_map(&table, 0x100000000ull, 0x9000001000ull, RUN << 12, prot)) abort();
    bench_sink = page_table_unmap(&table, 0x100000000ull, RUN << 12);
    page_table_reclaim(&table);
  }
}

/* The tables stay: every page next to it is mapped. */
static void single(long operations) {
  static int at = 0;
  for (long n = 0; n < operations; n++) {
    uint64_t iova = scattered(order[at]);
    if (!page_table_map(&table, iova, 0x9000001000ull, 4096, prot)) abort();
    bench_sink = page_table_unmap(&table, iova, 4096);
    page_table_reclaim(&table);
    at = (at + 1) & (PAGES - 1);
  }
}

int main(void) {
  uint32_t state = 0x9e3779b9;
  memory_init(&memory, 0x8000000000ull, 1ull << 30);
  page_table_init(&table, &memory);
  bench_shuffle(order, PAGES, &state);
  for (int i = 0; i < PAGES; i++) page_table_map(&table, scattered(i) + 4096, 0x9000001000ull, 4096, prot);
  const struct bench_case cases[] = {{"run", run}, {"single", single}};
  return bench_serve(cases, 2);
}
