/* The SMMU's translation (src/machine/smmu, tlb.ts): stream contexts, a direct-mapped TLB, the walk of 4 levels in memory. */
#ifndef SMMU_H
#define SMMU_H

#include "pgtable.h"

#define ACCESS_READ 1
#define ACCESS_WRITE 2
#define ACCESS_EXECUTE 4
#define ACCESS_PRIVILEGED 8
#define RWX 7

enum { STATUS_OK, STATUS_FAULT };
enum { F_TRANSLATION = 0x10, F_ADDR_SIZE, F_ACCESS, F_PERMISSION, F_WALK_EABT = 0x0b };

struct transaction {
  uint64_t iova, pa;
  uint32_t requester;
  int32_t ssid;
  uint32_t data;
  int size, access;
};

struct stage {
  uint64_t table;
  int input_bits, output_bits, start_level;
  bool access_flag_off, hierarchical, write_no_exec;
};

struct walk {
  uint64_t out;
  int leaf_shift, perms;
  bool global;
};

#define TLB_SIZE 4096

struct tlb_entry {
  uint64_t tag; /* page address, with the regime in its low bits; 0 is empty */
  uint64_t pa;
  uint32_t id;
  uint16_t perms;
  uint16_t leaf;
};

struct stream_context {
  uint32_t sid;
  int32_t ssid;
  uint32_t id, hash;
  int regime;
  struct stage s1;
};

#define CONTEXTS 4096

struct tap {
  const void *observer;
};

struct smmu {
  struct memory *memory;
  const struct tap *tap;
  struct stream_context *contexts[CONTEXTS];
  struct tlb_entry tlb[TLB_SIZE];
};

static inline bool permits(int perms, int access) {
  return (access & RWX & ~(perms >> ((access & ACCESS_PRIVILEGED) >> 1))) == 0;
}

static inline uint32_t tlb_hash(uint32_t id) { return (id ^ (id >> 13)) & (TLB_SIZE - 1); }

static inline uint32_t tlb_index(uint64_t iova, uint32_t hash) {
  return ((iova >> 12) ^ (iova >> 24) ^ (iova >> 29) ^ hash) & (TLB_SIZE - 1);
}

static inline uint32_t slot_of(uint32_t sid, int32_t ssid) { return ((sid ^ ((ssid + 1) * 0x9d)) * 0x9e3779b1u) >> 20; }

static inline bool exceeds(uint64_t address, int bits) { return bits < 64 && address >> bits != 0; }

/* Stage 1 of the lower half. 0, or the event. */
static int BOUNDARY smmu_walk(struct memory *memory, const struct stage *stage, uint64_t iova, int access, struct walk *walk) {
  if (exceeds(iova, stage->input_bits)) return F_TRANSLATION;
  uint64_t table = stage->table, inherited = 0, entry;
  if (exceeds(table, stage->output_bits)) return F_ADDR_SIZE;
  int level = stage->start_level;
  for (;; level++) {
    uint64_t *word = memory_word(memory, table | (uint64_t)level_index(iova, level) << 3);
    if (word == NULL) return F_WALK_EABT;
    entry = *word;
    if (!(entry & 1)) return F_TRANSLATION;
    if (!((entry & 2) && level < LEAF)) break;
    table = entry & 0xfffffffff000ull;
    if (exceeds(table, stage->output_bits)) return F_ADDR_SIZE;
    if (stage->hierarchical) inherited |= entry;
  }
  if (level == LEAF ? (entry & 3) != 3 : level == 0) return F_TRANSLATION;
  int shift = level_shift(level);
  uint64_t mask = (1ull << shift) - 1;
  walk->out = (entry & 0xffffffffffffull & ~mask) | (iova & mask);
  if (exceeds(walk->out, stage->output_bits)) return F_ADDR_SIZE;
  walk->leaf_shift = shift;
  if (inherited >> 59) {
    if (inherited >> 62 & 1) entry |= 0x80;
    if (inherited >> 61 & 1) entry &= ~0x40ull;
    if (inherited >> 60 & 1) entry |= 1ull << 54;
    if (inherited >> 59 & 1) entry |= 1ull << 53;
  }
  if (!(entry & 0x400) && !stage->access_flag_off) return F_ACCESS;
  bool writable = !(entry & 0x80), unprivileged = entry & 0x40;
  int base = ACCESS_READ | (writable ? ACCESS_WRITE : 0);
  bool no_exec = writable && stage->write_no_exec;
  int user = unprivileged ? base | ((entry >> 54 & 1) || no_exec ? 0 : ACCESS_EXECUTE) : 0;
  bool kernel_no_exec = (entry >> 53 & 1) || no_exec || (unprivileged && writable);
  walk->perms = user | (base | (kernel_no_exec ? 0 : ACCESS_EXECUTE)) << 4;
  walk->global = !(entry & 0x800);
  return permits(walk->perms, access) ? 0 : F_PERMISSION;
}

static int __attribute__((noinline)) smmu_miss(struct smmu *smmu, struct transaction *tx) {
  struct stream_context *context = smmu->contexts[slot_of(tx->requester, tx->ssid)];
  /* The benchmark installs every context beforehand. */
  if (context->sid != tx->requester || context->ssid != tx->ssid) abort();
  struct walk walk;
  if (smmu_walk(smmu->memory, &context->s1, tx->iova, tx->access, &walk) != 0) return STATUS_FAULT;
  struct tlb_entry *entry = &smmu->tlb[tlb_index(tx->iova, context->hash)];
  entry->tag = (tx->iova & ~4095ull) | context->regime;
  entry->id = context->id;
  entry->leaf = walk.leaf_shift | (walk.global ? 0x100 : 0);
  entry->pa = walk.out & ~4095ull;
  entry->perms = walk.perms;
  tx->pa = walk.out;
  return STATUS_OK;
}

static int BOUNDARY smmu_translate(void *self, struct transaction *tx) {
  struct smmu *smmu = self;
  if (smmu->tap->observer != NULL) abort();
  struct stream_context *context = smmu->contexts[slot_of(tx->requester, tx->ssid)];
  if (context->sid == tx->requester && context->ssid == tx->ssid) {
    struct tlb_entry *entry = &smmu->tlb[tlb_index(tx->iova, context->hash)];
    if (entry->tag == ((tx->iova & ~4095ull) | context->regime) && entry->id == context->id &&
        permits(entry->perms, tx->access)) {
      tx->pa = entry->pa | (tx->iova & 4095);
      return STATUS_OK;
    }
  }
  return smmu_miss(smmu, tx);
}

/* Stands in every empty slot: no transaction has this stream id. */
static struct stream_context no_context = {.sid = UINT32_MAX, .ssid = -2};
static struct tap smmu_tap;

static inline void smmu_init(struct smmu *smmu, struct memory *memory) {
  smmu->memory = memory;
  smmu->tap = &smmu_tap;
  for (int i = 0; i < CONTEXTS; i++) smmu->contexts[i] = &no_context;
}

static inline void smmu_attach(struct smmu *smmu, uint32_t sid, uint32_t asid, const struct page_table *table) {
  struct stream_context *context = calloc(1, sizeof(*context));
  *context = (struct stream_context){
      .sid = sid,
      .ssid = -1,
      .id = asid,
      .hash = tlb_hash(asid),
      .regime = 1,
      .s1 = {.table = table->root->pa, .input_bits = 48, .output_bits = 48, .hierarchical = true},
  };
  smmu->contexts[slot_of(sid, -1)] = context;
}

#endif
