/* Physical memory (src/machine/memory.ts, frames.ts): 64 MiB segments made when touched, and the allocator of 4 KiB frames. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdbool.h>
#include "bench.h"

#define SEGMENT_SHIFT 26
#define SEGMENT_BYTES (1ull << SEGMENT_SHIFT)
#define FRAME 4096ull
#define FRAMES_PER_SEGMENT (SEGMENT_BYTES / FRAME)

struct memory {
  uint64_t **segments;
  bool *exists;
  uint64_t count;
  /* The segment last used. */
  uint64_t last;
  uint64_t *words;
  /* The allocator: what was never handed out, what came back, and one byte per frame. */
  uint64_t next, end;
  uint64_t *returned;
  uint64_t returned_count, returned_capacity;
  uint8_t **used;
  uint64_t allocated;
};

static inline void memory_init(struct memory *memory, uint64_t base, uint64_t size) {
  memory->count = (base + size) >> SEGMENT_SHIFT;
  memory->last = UINT64_MAX;
  memory->segments = calloc(memory->count, sizeof(uint64_t *));
  memory->exists = calloc(memory->count, 1);
  memory->used = calloc(memory->count, sizeof(uint8_t *));
  for (uint64_t i = base >> SEGMENT_SHIFT; i < memory->count; i++) memory->exists[i] = true;
  memory->next = base;
  memory->end = base + size;
  memory->returned = NULL;
  memory->returned_count = memory->returned_capacity = 0;
  memory->allocated = 0;
}

static bool memory_find(struct memory *memory, uint64_t index) {
  if (index >= memory->count || !memory->exists[index]) return false;
  if (memory->segments[index] == NULL) memory->segments[index] = calloc(1, SEGMENT_BYTES);
  memory->words = memory->segments[index];
  memory->last = index;
  return true;
}

/* The aligned word that holds a physical address; NULL where no memory is. */
static inline uint64_t *memory_word(struct memory *memory, uint64_t pa) {
  uint64_t index = pa >> SEGMENT_SHIFT;
  if (index != memory->last && !memory_find(memory, index)) return NULL;
  return memory->words + ((pa & (SEGMENT_BYTES - 1)) >> 3);
}

/* A frame is handed out once and given back once. */
static inline void memory_mark(struct memory *memory, uint64_t pa, uint8_t value) {
  uint64_t index = pa >> SEGMENT_SHIFT;
  if (memory->used[index] == NULL) memory->used[index] = calloc(1, FRAMES_PER_SEGMENT);
  uint8_t *at = memory->used[index] + ((pa & (SEGMENT_BYTES - 1)) / FRAME);
  if (*at == value) abort();
  *at = value;
}

static inline uint64_t memory_allocate(struct memory *memory) {
  uint64_t pa;
  if (memory->returned_count > 0) pa = memory->returned[--memory->returned_count];
  else if (memory->next < memory->end) {
    pa = memory->next;
    memory->next += FRAME;
  } else abort();
  memory_mark(memory, pa, 1);
  memory->allocated += FRAME;
  memset(memory_word(memory, pa), 0, FRAME);
  return pa;
}

static inline void memory_free(struct memory *memory, uint64_t pa) {
  memory_mark(memory, pa, 0);
  memory->allocated -= FRAME;
  if (memory->returned_count == memory->returned_capacity) {
    memory->returned_capacity = memory->returned_capacity ? memory->returned_capacity * 2 : 64;
    memory->returned = realloc(memory->returned, memory->returned_capacity * sizeof(uint64_t));
  }
  memory->returned[memory->returned_count++] = pa;
}

#endif
