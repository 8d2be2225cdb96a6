/*
 * A program for `belfry exec`, and for itself. `read SIZE N`: N reads of a file in its cache, nanoseconds of CPU time each. `interrupts N`: rings device
 * 0000:01:00.0 (bell) N times and takes each interrupt from its eventfd, interrupts per second. `storm N`: the same without taking them one by one.
 * `register N`: reads a mapped register of it (edu) N times, microseconds each, p50 and p99.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define REGION(n, at) (((off_t)(n) << 40) + (at))
#define RING 0x04
#define FILE_SIZE (1 << 20)

static double now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(3);
}

static int ascending(const void *a, const void *b) { return *(double *)a < *(double *)b ? -1 : 1; }

static void reads(long size, long count)
{
	char *buffer = calloc(1, size);
	int fd = memfd_create("file", 0);
	if (!buffer || fd < 0 || ftruncate(fd, FILE_SIZE)) fail("file");
	for (int i = 0; i < FILE_SIZE / 4096; i++) if (pwrite(fd, "x", 1, i * 4096L) != 1) fail("write");
	double start = 0;
	/* A tenth more, before the clock starts. */
	for (long i = -count / 10; i < count; i++) {
		if (i == 0) start = now(CLOCK_PROCESS_CPUTIME_ID);
		ssize_t got = read(fd, buffer, size);
		if (got < 0) fail("read");
		if (got < size) lseek(fd, 0, SEEK_SET);
	}
	printf("%.1f\n", (now(CLOCK_PROCESS_CPUTIME_ID) - start) / count);
}

static int open_device(void)
{
	int container = open("/dev/vfio/vfio", O_RDWR), group = open("/dev/vfio/1", O_RDWR);
	if (container < 0 || group < 0) fail("open");
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) fail("container");
	int device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "0000:01:00.0");
	uint16_t command = 6;
	if (device < 0 || pwrite(device, &command, 2, REGION(VFIO_PCI_CONFIG_REGION_INDEX, 4)) != 2) fail("device");
	return device;
}

static int interrupt(int device)
{
	int fd = eventfd(0, 0);
	char bytes[sizeof(struct vfio_irq_set) + sizeof fd];
	struct vfio_irq_set *set = (void *)bytes;
	*set = (struct vfio_irq_set){ .argsz = sizeof bytes, .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, .index = VFIO_PCI_MSIX_IRQ_INDEX, .count = 1 };
	memcpy(set->data, &fd, sizeof fd);
	if (fd < 0 || ioctl(device, VFIO_DEVICE_SET_IRQS, set)) fail("interrupt");
	return fd;
}

static void interrupts(long count, int each)
{
	int device = open_device(), fd = interrupt(device);
	uint32_t vector = 0;
	uint64_t seen = 0, total = 0;
	double start = 0;
	for (long i = -count / 10; i < count; i++) {
		if (i == 0) start = now(CLOCK_MONOTONIC);
		if (pwrite(device, &vector, sizeof vector, REGION(0, RING)) != sizeof vector) fail("ring");
		if (each || i == count - 1) {
			if (read(fd, &seen, sizeof seen) != sizeof seen) fail("read");
			total += seen;
		}
	}
	if (total != (uint64_t)(count + count / 10)) {
		fprintf(stderr, "%ld interrupts of %ld\n", (long)total, count + count / 10);
		exit(3);
	}
	printf("%.0f\n", count / ((now(CLOCK_MONOTONIC) - start) / 1e9));
}

static void registers(long count)
{
	int device = open_device();
	struct vfio_region_info info = { .argsz = sizeof info, .index = 0 };
	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info) || !(info.flags & VFIO_REGION_INFO_FLAG_MMAP)) fail("region");
	volatile uint32_t *bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, info.offset);
	double *times = malloc(count * sizeof *times);
	if (bar == MAP_FAILED || !times) fail("mmap");
	for (long i = -count / 10; i < count; i++) {
		double start = now(CLOCK_MONOTONIC);
		if (bar[0] != 0x010000ed) fail("register");
		if (i >= 0) times[i] = (now(CLOCK_MONOTONIC) - start) / 1e3;
	}
	qsort(times, count, sizeof *times, ascending);
	printf("%.2f %.2f\n", times[count / 2], times[count * 99 / 100]);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	long count = argc > 2 ? atol(argv[argc - 1]) : 10000;
	if (!strcmp(what, "read")) reads(argc > 3 ? atol(argv[2]) : 4096, count);
	else if (!strcmp(what, "interrupts")) interrupts(count, 1);
	else if (!strcmp(what, "storm")) interrupts(count, 0);
	else if (!strcmp(what, "register")) registers(count);
	else return 2;
	return 0;
}
