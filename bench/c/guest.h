/*
 * From the host's handler into the guest (src/kernel/eventfd.ts, kvm/irqfd.ts, kvm/vgic, src/machine/work.ts,
 * src/vmm/guest-driver.ts): eventfd, irqfd, the interrupt on its CPU's list, the CPU's signal, acknowledge, end of interrupt.
 */
#ifndef GUEST_H
#define GUEST_H

#include "machine.h"

/* ---- deferred work ---- */

struct job {
  void (*run)(struct job *self);
  bool waiting;
};

#define JOBS 1024
static struct job *jobs[JOBS];
static uint32_t job_head, job_tail;
static bool draining;

static inline void work_post(struct job *job) {
  if (job->waiting) return;
  job->waiting = true;
  jobs[job_tail++ & (JOBS - 1)] = job;
}

static inline void work_drain(void) {
  if (draining || job_head == job_tail) return;
  draining = true;
  while (job_head != job_tail) {
    struct job *job = jobs[job_head++ & (JOBS - 1)];
    job->waiting = false;
    job->run(job);
  }
  draining = false;
}

/* ---- the guest's GIC ---- */

#define IDLE 32
#define SPURIOUS 1023
#define GUEST_LPIS 8192

struct vgic_cpu;

struct vgic_irq {
  uint32_t intid;
  bool lpi, enabled, level, latch, line, active, counted;
  uint8_t priority, bucket;
  struct vgic_cpu *cpu, *queued_on;
  struct vgic_irq *previous, *next;
};

struct vgic_cpu {
  struct job job;
  bool posted;
  uint32_t waiting; /* bit 31 - b: the list of priority b is not empty */
  struct vgic_irq *heads[IDLE], *tails[IDLE];
  int running[IDLE];
  struct vgic_irq *acknowledged[IDLE];
  int depth;
  void (*listener)(void *guest);
  void *guest;
};

static bool vgic_enabled = true;

static inline int leading_zeros(uint32_t value) { return value == 0 ? 32 : __builtin_clz(value); }
static inline int cpu_priority(struct vgic_cpu *cpu) { return cpu->depth == 0 ? IDLE : cpu->running[cpu->depth - 1]; }
static inline bool cpu_pending(struct vgic_cpu *cpu) { return leading_zeros(cpu->waiting) < cpu_priority(cpu); }
static inline bool irq_pending(const struct vgic_irq *irq) { return irq->latch || (irq->level && irq->line); }

static inline void cpu_kick(struct vgic_cpu *cpu) {
  if (cpu->posted || cpu->listener == NULL || !cpu_pending(cpu)) return;
  cpu->posted = true;
  work_post(&cpu->job);
}

static inline void cpu_enqueue(struct vgic_cpu *cpu, struct vgic_irq *irq, int bucket) {
  struct vgic_irq *tail = cpu->tails[bucket];
  irq->queued_on = cpu;
  irq->bucket = bucket;
  irq->previous = tail;
  irq->next = NULL;
  if (tail == NULL) cpu->heads[bucket] = irq;
  else tail->next = irq;
  cpu->tails[bucket] = irq;
  cpu->waiting |= 0x80000000u >> bucket;
  cpu_kick(cpu);
}

static inline void cpu_dequeue(struct vgic_cpu *cpu, struct vgic_irq *irq) {
  int bucket = irq->bucket;
  if (irq->previous == NULL) cpu->heads[bucket] = irq->next;
  else irq->previous->next = irq->next;
  if (irq->next == NULL) cpu->tails[bucket] = irq->previous;
  else irq->next->previous = irq->previous;
  if (cpu->heads[bucket] == NULL) cpu->waiting &= ~(0x80000000u >> bucket);
  irq->queued_on = NULL;
  irq->previous = irq->next = NULL;
}

static inline void irq_refresh(struct vgic_irq *irq) {
  struct vgic_cpu *to = irq_pending(irq) && irq->enabled && !irq->active && vgic_enabled ? irq->cpu : NULL;
  int bucket = irq->priority >> 3;
  if (irq->queued_on != NULL && (irq->queued_on != to || irq->bucket != bucket)) cpu_dequeue(irq->queued_on, irq);
  if (to != NULL && irq->queued_on == NULL) cpu_enqueue(to, irq, bucket);
}

static void irq_inject(struct vgic_irq *irq) {
  if (observer != NULL) abort();
  if (irq_pending(irq)) {
    if (irq->level) irq->line = true;
    ledger[COALESCED]++;
    return;
  }
  irq->counted = true;
  ledger[PENDING]++;
  if (irq->level) irq->line = true;
  else irq->latch = true;
  irq_refresh(irq);
}

static inline uint32_t cpu_acknowledge(struct vgic_cpu *cpu) {
  int bucket = leading_zeros(cpu->waiting);
  if (bucket >= cpu_priority(cpu)) return SPURIOUS;
  struct vgic_irq *irq = cpu->heads[bucket];
  cpu->running[cpu->depth] = bucket;
  cpu->acknowledged[cpu->depth++] = irq;
  cpu_dequeue(cpu, irq);
  irq->latch = false;
  if (!irq->lpi) irq->active = true;
  if (irq->counted) {
    irq->counted = false;
    ledger[PENDING]--;
    ledger[DELIVERED]++;
  }
  irq_refresh(irq);
  if (observer != NULL) abort();
  return irq->intid;
}

static inline void cpu_end_of_interrupt(struct vgic_cpu *cpu, uint32_t intid) {
  int at = cpu->depth - 1;
  while (at >= 0 && cpu->acknowledged[at]->intid != intid) at--;
  if (at < 0) return;
  struct vgic_irq *irq = cpu->acknowledged[at];
  if (observer != NULL) abort();
  for (int i = at; i < cpu->depth - 1; i++) {
    cpu->running[i] = cpu->running[i + 1];
    cpu->acknowledged[i] = cpu->acknowledged[i + 1];
  }
  cpu->acknowledged[--cpu->depth] = NULL;
  if (!irq->lpi) {
    irq->active = false;
    irq_refresh(irq);
  }
  cpu_kick(cpu);
}

static void cpu_run(struct job *job) {
  struct vgic_cpu *cpu = (struct vgic_cpu *)job;
  cpu->posted = false;
  if (cpu->listener != NULL && cpu_pending(cpu)) cpu->listener(cpu->guest);
}

/* ---- eventfd and irqfd ---- */

struct consumer {
  void (*signalled)(void *self);
};

struct eventfd {
  struct consumer *consumer;
  uint64_t count;
};

static inline void eventfd_signal(struct eventfd *eventfd) {
  if (observer != NULL) abort();
  if (eventfd->consumer != NULL) eventfd->consumer->signalled(eventfd->consumer);
  else eventfd->count++;
}

struct vector {
  struct irq_handler handler;
  struct eventfd *eventfd;
};

static void vector_handle(void *self) { eventfd_signal(((struct vector *)self)->eventfd); }

struct vm;

struct irqfd {
  struct consumer consumer;
  struct vm *vm;
  struct vgic_irq *target;
  uint32_t epoch;
};

/* ---- the VM, and its guest as a program ---- */

#define SLOTS 4096

struct vm {
  uint32_t epoch;
  struct vgic_cpu cpu;
  int lpis;
  uint64_t served;
  int32_t slots[65536];
  int32_t counts[SLOTS];
  void (*handlers[SLOTS])(int vector);
};

static void irqfd_signalled(void *self) {
  struct irqfd *irqfd = self;
  if (observer != NULL) abort();
  if (irqfd->target == NULL || irqfd->epoch != irqfd->vm->epoch) abort();
  irq_inject(irqfd->target);
}

static void guest_serve(void *self) {
  struct vm *vm = self;
  for (;;) {
    uint32_t intid = cpu_acknowledge(&vm->cpu);
    if (intid == SPURIOUS) return;
    int32_t slot = vm->slots[intid];
    if (slot < 0) abort();
    vm->counts[slot]++;
    if (vm->handlers[slot] != NULL) vm->handlers[slot](slot);
    cpu_end_of_interrupt(&vm->cpu, intid);
    work_drain();
  }
}

static struct vm *vm_make(void) {
  struct vm *vm = calloc(1, sizeof(*vm));
  vm->cpu.job.run = cpu_run;
  vm->cpu.listener = guest_serve;
  vm->cpu.guest = vm;
  memset(vm->slots, -1, sizeof(vm->slots));
  return vm;
}

/* A vector's way into the guest: handler, eventfd, irqfd, and an LPI of the guest. */
static struct irq_handler *vm_add_vector(struct vm *vm) {
  struct vgic_irq *irq = calloc(1, sizeof(*irq));
  struct irqfd *irqfd = calloc(1, sizeof(*irqfd));
  struct eventfd *eventfd = calloc(1, sizeof(*eventfd));
  struct vector *vector = calloc(1, sizeof(*vector));
  *irq = (struct vgic_irq){.intid = GUEST_LPIS + vm->lpis, .lpi = true, .enabled = true, .priority = 0xa0, .cpu = &vm->cpu};
  *irqfd = (struct irqfd){{irqfd_signalled}, vm, irq, vm->epoch};
  eventfd->consumer = &irqfd->consumer;
  *vector = (struct vector){{vector_handle}, eventfd};
  vm->slots[irq->intid] = vm->lpis++;
  return &vector->handler;
}

#endif
