/* Device to guest: each interrupt is acknowledged and ended before the next is raised. */
#include "guest.h"

#define ORDER 65536
#define VMS 4

static struct vm *vms[VMS];
static int devices_per_vm;
static struct host host;
static int32_t device_order[ORDER], vector_order[ORDER];

static struct irq_handler *handler_of(int device, int vector) {
  (void)vector;
  return vm_add_vector(vms[device / devices_per_vm]);
}

static void raise_each(long operations) {
  uint64_t before = ledger[DELIVERED];
  for (long n = 0; n < operations; n++) {
    int i = n & (ORDER - 1);
    function_raise(&host.functions[device_order[i]], vector_order[i]);
    work_drain();
  }
  if (ledger[DELIVERED] - before != (uint64_t)operations) abort();
}

/* One scene in a process: which is its argument. */
int main(int argc, char **argv) {
  const char *scene = argc > 1 ? argv[1] : "guest-1x1";
  int devices = strcmp(scene, "guest-64x32") == 0 ? 64 : 1;
  int vectors = devices > 1 ? 32 : strcmp(scene, "guest-1x2048") == 0 ? 2048 : 1;
  uint32_t state = 0x9e3779b9;
  devices_per_vm = (devices + VMS - 1) / VMS;
  for (int i = 0; i < VMS; i++) vms[i] = vm_make();
  host_init(&host, devices, vectors, handler_of);
  for (int i = 0; i < ORDER; i++) {
    device_order[i] = bench_random(&state) % devices;
    vector_order[i] = bench_random(&state) % vectors;
  }
  const struct bench_case cases[] = {{scene, raise_each}};
  return bench_serve(cases, 1);
}
