/*
 * The way of an MSI up to the host's handler (src/machine/pci/{function,msix,upstream}.ts, bus.ts, gic/its*.ts and
 * src/kernel/irq/irq-core.ts): raise, MSI-X entry, SMMU, doorbell page, ITS, irq core, handler.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include "smmu.h"

enum count { SENT, DELIVERED, COALESCED, PENDING, LOST = 8, LEDGER = 64 };
enum { BUS_MASTER_OFF, NOT_ENABLED, IOMMU_FAULT, UNCLAIMED = 4, CONTROLLER_OFF = 7, NO_DEVICE, NO_EVENT, NO_COLLECTION };

static uint64_t ledger[LEDGER];
static const void *volatile observer;

/* ---- irq core ---- */

struct irq_handler {
  void (*handle)(void *self);
};

struct irq_desc {
  struct irq_handler *handler;
  uint32_t depth;
  bool level, pending;
  uint64_t count[4];
};

#define INTIDS 65536
static int32_t irq_of_intid[INTIDS];
static struct irq_desc *irqs;

static void BOUNDARY irq_interrupt(uint32_t intid, int cpu) {
  uint32_t irq = intid < INTIDS ? irq_of_intid[intid] : 0;
  struct irq_desc *desc = &irqs[irq];
  if (desc->level) abort();
  if (desc->handler == NULL) {
    ledger[LOST + 13]++;
    return;
  }
  if (desc->depth > 0) {
    ledger[desc->pending ? COALESCED : PENDING]++;
    desc->pending = true;
    return;
  }
  desc->count[cpu]++;
  if (observer != NULL) abort();
  desc->handler->handle(desc->handler);
}

/* ---- ITS: the cache of (device, event), and its tables in memory behind it ---- */

#define DOORBELL 0x40
#define ITS_LINES 8192

struct its_line {
  uint32_t device, event, lpi;
  int32_t state; /* CPU + 1; 0: nothing here */
};

struct its {
  struct its_line lines[ITS_LINES];
  struct memory *memory;
  uint64_t devices, collections;
  bool enabled;
};

static inline uint32_t its_line_at(uint32_t device, uint32_t event) {
  return (((device * 0x9e3779b1u) >> 19) + event) & (ITS_LINES - 1);
}

/* Device entry: valid[63], ITT in [51:8], event bits in [4:0]; ITT entry: valid[63], collection[47:32], LPI[31:0]. */
static int __attribute__((noinline)) its_resolve(struct its *its, uint32_t device, uint32_t event) {
  if (!its->enabled) return CONTROLLER_OFF;
  uint64_t *word = memory_word(its->memory, its->devices + device * 8ull);
  if (word == NULL || !(*word >> 63)) return NO_DEVICE;
  if (event >> (*word & 31)) return NO_EVENT;
  word = memory_word(its->memory, (*word & 0xfffffffffff00ull) + event * 8ull);
  if (word == NULL || !(*word >> 63)) return NO_EVENT;
  uint32_t lpi = (uint32_t)*word;
  word = memory_word(its->memory, its->collections + (*word >> 32 & 0xffff) * 8ull);
  if (word == NULL || !(*word >> 63)) return NO_COLLECTION;
  struct its_line *line = &its->lines[its_line_at(device, event)];
  *line = (struct its_line){device, event, lpi, (int32_t)(*word & 0xffff) + 1};
  return -1;
}

static int BOUNDARY its_message(void *self, struct transaction *tx) {
  struct its *its = self;
  if ((tx->pa & 0xffff) != DOORBELL) abort();
  struct its_line *line = &its->lines[its_line_at(tx->requester, tx->data)];
  if (line->device != tx->requester || line->event != tx->data || line->state <= 0) {
    int loss = its_resolve(its, tx->requester, tx->data);
    if (loss >= 0) {
      ledger[LOST + loss]++;
      return STATUS_OK;
    }
  }
  if (observer != NULL) abort();
  irq_interrupt(line->lpi, line->state - 1);
  return STATUS_OK;
}

static void its_map_device(struct its *its, uint32_t device, uint64_t itt, int bits) {
  *memory_word(its->memory, its->devices + device * 8ull) = 1ull << 63 | itt | bits;
}

static void its_map_event(struct its *its, uint64_t itt, uint32_t event, uint32_t lpi, uint32_t collection) {
  *memory_word(its->memory, itt + event * 8ull) = 1ull << 63 | (uint64_t)collection << 32 | lpi;
}

/* ---- bus ---- */

struct bus {
  uint64_t bell_page;
  int (*message)(void *controller, struct transaction *tx);
  void *controller;
};

static int BOUNDARY bus_store(struct bus *bus, struct transaction *tx) {
  if ((tx->pa & ~4095ull) == bus->bell_page) return bus->message(bus->controller, tx);
  abort();
}

/* ---- function ---- */

enum { GATE_CLOSED, GATE_MSI, GATE_MSIX };

struct upstream {
  struct smmu *smmu;
  struct bus *bus;
  uint64_t bell_page;
};

struct function {
  struct transaction tx;
  struct upstream *upstream;
  uint32_t *table; /* address low, address high, data, control */
  uint32_t *pending;
  int vectors, pending_count, gate;
  bool function_mask, sending, reaches_peers;
};

static inline int upstream_message(struct upstream *up, struct transaction *tx, struct function *from) {
  if (from->reaches_peers) abort();
  if (up->smmu == NULL) tx->pa = tx->iova;
  else if (smmu_translate(up->smmu, tx) != STATUS_OK) return IOMMU_FAULT;
  if ((tx->pa & ~4095ull) != up->bell_page) abort();
  return bus_store(up->bus, tx) == STATUS_OK ? -1 : UNCLAIMED;
}

static inline bool function_lose(int loss) {
  ledger[LOST + loss]++;
  return false;
}

static inline bool function_send(struct function *fn, uint64_t address, uint32_t data) {
  if (fn->sending) return function_lose(UNCLAIMED);
  fn->tx.iova = address;
  fn->tx.data = data;
  if (observer != NULL) abort();
  fn->sending = true;
  int loss = upstream_message(fn->upstream, &fn->tx, fn);
  fn->sending = false;
  return loss < 0 || function_lose(loss);
}

static bool BOUNDARY function_raise(struct function *fn, int vector) {
  ledger[SENT]++;
  if (fn->gate != GATE_MSIX) return function_lose(NOT_ENABLED);
  if (vector < 0 || vector >= fn->vectors) return function_lose(NOT_ENABLED);
  if (fn->pending_count != 0) abort();
  uint32_t *entry = fn->table + vector * 4;
  if (!fn->function_mask && !(entry[3] & 1)) return function_send(fn, (uint64_t)entry[1] << 32 | entry[0], entry[2]);
  if (!(fn->pending[vector >> 5] >> (vector & 31) & 1)) {
    fn->pending[vector >> 5] |= 1u << (vector & 31);
    fn->pending_count++;
    ledger[PENDING]++;
  } else ledger[COALESCED]++;
  return false;
}

/* ---- a host with its devices, as Linux sets one up ---- */

#define TRANSLATION_PAGE 0x50810000ull
#define DOORBELL_IOVA 0x8000000ull
#define FIRST_LPI 8192

struct host {
  struct memory memory;
  struct smmu smmu;
  struct its its;
  struct bus bus;
  struct upstream upstream;
  struct function *functions;
  int devices;
};

/* handler_of(device, vector): who takes the interrupt. Stream ids are those of functions 0 behind root ports. */
static void host_init(struct host *host, int devices, int vectors, struct irq_handler *(*handler_of)(int, int)) {
  memset(host, 0, sizeof(*host));
  memory_init(&host->memory, 0x8000000000ull, 1ull << 30);
  smmu_init(&host->smmu, &host->memory);
  host->its.memory = &host->memory;
  host->its.enabled = true;
  /* Flat tables of 65,536 entries: 128 frames in a row. */
  host->its.devices = memory_allocate(&host->memory);
  for (int i = 1; i < 128; i++) memory_allocate(&host->memory);
  host->its.collections = memory_allocate(&host->memory);
  for (uint64_t cpu = 0; cpu < 4; cpu++) *memory_word(&host->memory, host->its.collections + cpu * 8) = 1ull << 63 | cpu;
  host->bus = (struct bus){TRANSLATION_PAGE, its_message, &host->its};
  host->upstream = (struct upstream){&host->smmu, &host->bus, TRANSLATION_PAGE};
  host->functions = calloc(devices, sizeof(struct function));
  host->devices = devices;
  irqs = calloc((size_t)devices * vectors + 1, sizeof(struct irq_desc));
  memset(irq_of_intid, 0, sizeof(irq_of_intid));
  uint32_t lpi = FIRST_LPI, irq = 1;
  for (int d = 0; d < devices; d++) {
    uint32_t sid = (uint32_t)(d + 1) << 8;
    struct function *fn = &host->functions[d];
    struct page_table *table = malloc(sizeof(*table));
    page_table_init(table, &host->memory);
    page_table_map(table, DOORBELL_IOVA, TRANSLATION_PAGE, 4096, PROT_READ | PROT_WRITE | PROT_NOEXEC);
    smmu_attach(&host->smmu, sid, d + 1, table);
    uint64_t itt = memory_allocate(&host->memory);
    for (int frames = 1; frames < (vectors * 8 + 4095) / 4096; frames++) memory_allocate(&host->memory);
    its_map_device(&host->its, sid, itt, 31 - __builtin_clz(vectors < 2 ? 2 : vectors));
    *fn = (struct function){
        .tx = {.requester = sid, .ssid = -1, .size = 4, .access = ACCESS_WRITE},
        .upstream = &host->upstream,
        .table = calloc(vectors, 16),
        .pending = calloc((vectors + 31) / 32, 4),
        .vectors = vectors,
        .gate = GATE_MSIX,
    };
    for (int v = 0; v < vectors; v++, lpi++, irq++) {
      its_map_event(&host->its, itt, v, lpi, 0);
      memcpy(fn->table + v * 4, (uint32_t[]){DOORBELL_IOVA | DOORBELL, 0, v, 0}, 16);
      irq_of_intid[lpi] = irq;
      irqs[irq].handler = handler_of(d, v);
    }
  }
}

#endif
