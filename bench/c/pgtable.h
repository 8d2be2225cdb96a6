/*
 * Page tables in memory (src/kernel/iommu/pgtable.ts, table-pool.ts): 4 levels of 4 KiB, a node beside each table, the last table of
 * pages remembered, tables that became empty kept for a while.
 */
#ifndef PGTABLE_H
#define PGTABLE_H

#include "memory.h"

#define LEVELS 4
#define LEAF 3
#define ENTRIES 512
#define SPARE_LIMIT 16
#define PRESENT 1ull
#define TABLE_BITS 3ull
#define PAGE_BITS 3ull

enum { PROT_READ = 1, PROT_WRITE = 2, PROT_CACHE = 4, PROT_NOEXEC = 8, PROT_MMIO = 16 };

struct table_node {
  uint64_t pa;
  uint64_t *words;
  struct table_node *parent;
  int level, slot;
  int count;
  struct table_node **children;
};

struct page_table {
  struct memory *memory;
  struct table_node *root;
  /* The table of pages last used, and the bits above it that lead there. */
  struct table_node *recent;
  uint64_t recent_key;
  /* The level 2 table last used, likewise. */
  struct table_node *directory;
  uint64_t directory_key;
  /* The protection last encoded, and its bits. */
  int encoded;
  uint64_t attributes;
  /* Empty tables by level, and those that the hardware may still walk. */
  struct table_node *spares[LEVELS][SPARE_LIMIT];
  int spare_count[LEVELS];
  struct table_node **emptied;
  int emptied_count, emptied_capacity;
};

static inline int level_shift(int level) { return 12 + 9 * (LEAF - level); }
static inline int level_index(uint64_t address, int level) { return (address >> level_shift(level)) & (ENTRIES - 1); }

static struct table_node *node_make(struct memory *memory, int level) {
  struct table_node *node = malloc(sizeof(*node));
  node->pa = memory_allocate(memory);
  node->words = memory_word(memory, node->pa);
  node->parent = NULL;
  node->level = level;
  node->slot = 0;
  node->count = 0;
  node->children = level == LEAF ? NULL : calloc(ENTRIES, sizeof(struct table_node *));
  return node;
}

static void page_table_init(struct page_table *table, struct memory *memory) {
  memset(table, 0, sizeof(*table));
  table->memory = memory;
  table->encoded = -1;
  table->root = node_make(memory, 0);
}

static struct table_node *page_table_add(struct page_table *table, struct table_node *node, int index) {
  int level = node->level + 1;
  struct table_node *child =
      table->spare_count[level] > 0 ? table->spares[level][--table->spare_count[level]] : node_make(table->memory, level);
  child->parent = node;
  child->slot = index;
  node->words[index] = child->pa | TABLE_BITS;
  node->children[index] = child;
  node->count++;
  return child;
}

/* The hardware has been told of what was unmapped. */
static void BOUNDARY page_table_reclaim(struct page_table *table) {
  for (int i = 0; i < table->emptied_count; i++) {
    struct table_node *node = table->emptied[i];
    if (table->spare_count[node->level] < SPARE_LIMIT) table->spares[node->level][table->spare_count[node->level]++] = node;
    else {
      memory_free(table->memory, node->pa);
      free(node->children);
      free(node);
    }
  }
  table->emptied_count = 0;
}

/* Takes an empty table out of its parent, and the parent with it when that leaves it empty. */
static void page_table_drop(struct page_table *table, struct table_node *node) {
  struct table_node *parent = node->parent;
  if (parent == NULL) return;
  if (node == table->recent) table->recent = NULL;
  if (node == table->directory) table->directory = NULL;
  parent->words[node->slot] = 0;
  parent->children[node->slot] = NULL;
  parent->count--;
  node->parent = NULL;
  if (table->emptied_count == table->emptied_capacity) {
    table->emptied_capacity = table->emptied_capacity ? table->emptied_capacity * 2 : 64;
    table->emptied = realloc(table->emptied, table->emptied_capacity * sizeof(struct table_node *));
  }
  table->emptied[table->emptied_count++] = node;
  if (parent->count == 0) page_table_drop(table, parent);
}

/* The table of pages of an address, or the deepest table on the way when it is not made. */
static struct table_node *page_table_find(struct page_table *table, uint64_t iova, bool make) {
  uint64_t key = iova >> level_shift(LEAF - 1);
  if (table->recent != NULL && table->recent_key == key) return table->recent;
  struct table_node *node = table->root;
  if (table->directory != NULL && table->directory_key == iova >> level_shift(LEAF - 2)) {
    node = table->directory->children[level_index(iova, LEAF - 1)];
    if (node != NULL) {
      table->recent = node;
      table->recent_key = key;
      return node;
    }
    node = table->root;
  }
  for (int level = 0; level < LEAF; level++) {
    int index = level_index(iova, level);
    struct table_node *child = node->children[index];
    if (child == NULL) {
      if (!make) return node;
      child = page_table_add(table, node, index);
    }
    node = child;
  }
  table->recent = node;
  table->recent_key = key;
  table->directory = node->parent;
  table->directory_key = iova >> level_shift(LEAF - 2);
  return node;
}

static inline void node_erase(struct page_table *table, struct table_node *node, int index, int count) {
  if (count == 1) node->words[index] = 0;
  else memset(node->words + index, 0, count * sizeof(uint64_t));
  node->count -= count;
  if (node->count == 0) page_table_drop(table, node);
}

static inline int minimum(int a, uint64_t b) { return (uint64_t)a < b ? a : (int)b; }

static uint64_t BOUNDARY page_table_unmap(struct page_table *table, uint64_t iova, uint64_t size) {
  uint64_t done = 0;
  while (done < size) {
    struct table_node *node = page_table_find(table, iova + done, false);
    if (node->level != LEAF) break;
    int index = level_index(iova + done, LEAF);
    int count = minimum(ENTRIES - index, (size - done) >> 12);
    int found = 0;
    while (found < count && (node->words[index + found] & PRESENT)) found++;
    if (found == 0) break;
    node_erase(table, node, index, found);
    done += (uint64_t)found << 12;
  }
  return done;
}

/* Stage 1: nG, AF, shareability, AP, the memory's attribute index, XN. */
static uint64_t attributes_of(int prot) {
  uint64_t index = prot & PROT_MMIO ? 2 : prot & PROT_CACHE ? 1 : 0;
  uint64_t bits = 0xc40 | (prot & PROT_CACHE ? 0x300 : 0x200) | (prot & PROT_WRITE ? 0 : 0x80) | index << 2;
  return bits | (prot & PROT_NOEXEC ? 3ull << 53 : 0);
}

/* Pages of 4 KiB alone: the benchmark's addresses are aligned to no block. False when a page is mapped already. */
static bool BOUNDARY page_table_map(struct page_table *table, uint64_t iova, uint64_t pa, uint64_t size, int prot) {
  if (prot != table->encoded) {
    table->encoded = prot;
    table->attributes = attributes_of(prot);
  }
  uint64_t attributes = table->attributes, done = 0;
  while (done < size) {
    struct table_node *node = page_table_find(table, iova + done, true);
    int index = level_index(iova + done, LEAF);
    int count = minimum(ENTRIES - index, (size - done) >> 12);
    uint64_t entry = (pa + done) | attributes | PAGE_BITS;
    uint64_t *at = node->words + index, *end = at + count;
    for (; at < end; at++) {
      if (*at & PRESENT) break;
      *at = entry;
      entry += 4096;
    }
    int written = at - (node->words + index);
    node->count += written;
    if (written < count) {
      node_erase(table, node, index, written);
      page_table_unmap(table, iova, done);
      return false;
    }
    done += (uint64_t)count << 12;
  }
  return true;
}

#endif
