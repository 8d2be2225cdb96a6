/* Translation: the TLB's hit, the walk alone, and a miss with its fill. */
#include "smmu.h"

#define SAMPLES 65536
#define SID 0x100

static struct memory memory;
static struct page_table table;
static struct smmu smmu;
/* One object for all, as a device has it: in memory. */
static struct transaction *tx;
static uint64_t wide[SAMPLES], narrow[SAMPLES];
static const uint64_t base = 0x100000000ull;

static void translate(const uint64_t *addresses, long operations) {
  uint64_t sum = 0;
  for (long n = 0; n < operations; n++) {
    tx->iova = addresses[n & (SAMPLES - 1)];
    if (smmu_translate(&smmu, tx) != STATUS_OK) abort();
    sum += tx->pa;
  }
  bench_sink = sum;
}

static void walk_each(const uint64_t *addresses, long operations) {
  struct stage *stage = &smmu.contexts[slot_of(SID, -1)]->s1;
  struct walk walk;
  uint64_t sum = 0;
  for (long n = 0; n < operations; n++) {
    if (smmu_walk(&memory, stage, addresses[n & (SAMPLES - 1)], ACCESS_WRITE, &walk) != 0) abort();
    sum += walk.out;
  }
  bench_sink = sum;
}

static void hit(long operations) { translate(narrow, operations); }
static void miss(long operations) { translate(wide, operations); }
static void walk_wide(long operations) { walk_each(wide, operations); }
static void walk_narrow(long operations) { walk_each(narrow, operations); }

int main(void) {
  uint32_t state = 0x9e3779b9;
  memory_init(&memory, 0x8000000000ull, 4ull << 30);
  page_table_init(&table, &memory);
  if (!page_table_map(&table, base, 0x8040001000ull, 1ull << 30, PROT_READ | PROT_WRITE | PROT_NOEXEC)) abort();
  smmu_init(&smmu, &memory);
  tx = calloc(1, sizeof(*tx));
  *tx = (struct transaction){.requester = SID, .ssid = -1, .size = 4, .access = ACCESS_WRITE};
  smmu_attach(&smmu, SID, 1, &table);
  for (int i = 0; i < SAMPLES; i++) {
    wide[i] = base + (bench_random(&state) & 0x3ffffffc);
    narrow[i] = base + (bench_random(&state) & 0x3ffffc);
  }
  const struct bench_case cases[] = {{"hit", hit}, {"miss", miss}, {"walk-1G", walk_wide}, {"walk-4M", walk_narrow}};
  return bench_serve(cases, 4);
}
