/*
 * A driver of one device (bell) as others write them: device-program 0000:01:00.0 WHAT [NUMBER]. It finds its group, drives the device, and prints what
 * it saw; it knows nothing of belfry.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/vfio.h>

#define PAGE 4096
#define PAGES 16
#define BAR(n, at) (((off_t)(n) << 40) + (at))

static const char *name;
static char group_path[64];
static int container, group, device;

static int fail(const char *what) { printf("%s: %s\n", what, strerror(errno)); fflush(stdout); exit(3); }
static void command(uint16_t value) { if (pwrite(device, &value, 2, BAR(7, 4)) != 2) fail("COMMAND"); }
static void reg(int at, uint32_t value) { if (pwrite(device, &value, 4, BAR(0, at)) != 4) fail("register"); }
static uint32_t get(int at) { uint32_t value = 0; pread(device, &value, 4, BAR(0, at)); return value; }

static void open_all(void)
{
	char path[128], link[256] = "";
	snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/iommu_group", name);
	if (readlink(path, link, sizeof link - 1) < 0) fail(path);
	snprintf(group_path, sizeof group_path, "/dev/vfio/%s", strrchr(link, '/') + 1);
	container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	group = open(group_path, O_RDWR | O_CLOEXEC);
	if (container < 0 || group < 0) fail(group_path);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) fail("container");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name);
	if (device < 0) fail(name);
	command(6);
}

/* 1 is done, 2 is failed, of a status that says so in bits 1 and 2. */
static uint32_t dma(uint64_t iova, uint32_t local, uint32_t length, int to_memory)
{
	reg(0x10, iova); reg(0x14, iova >> 32); reg(0x18, local); reg(0x1c, length); reg(0x20, 1 | (to_memory ? 2 : 0));
	for (int i = 0; i < 100000; i++) { uint32_t status = get(0x0c); if (status & 6) return status >> 1; }
	return 0;
}

static int map(void *at, uint64_t iova, size_t size)
{
	struct vfio_iommu_type1_dma_map m = { .argsz = sizeof m, .flags = 3, .vaddr = (uintptr_t)at, .iova = iova, .size = size };
	return ioctl(container, VFIO_IOMMU_MAP_DMA, &m);
}

static int trigger(const int *fds, int count)
{
	char bytes[sizeof(struct vfio_irq_set) + 4 * 8];
	struct vfio_irq_set *set = (void *)bytes;
	*set = (struct vfio_irq_set){ .argsz = sizeof *set + 4 * count, .flags = (count ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE) | VFIO_IRQ_SET_ACTION_TRIGGER, .index = VFIO_PCI_MSIX_IRQ_INDEX, .count = count };
	if (count) memcpy(set->data, fds, 4 * count);
	return ioctl(device, VFIO_DEVICE_SET_IRQS, set);
}

/* Waits for an interrupt that may never come. */
static void wait_for(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t count = 0;
	if (poll(&p, 1, 300) == 1) read(fd, &count, 8);
	if (count) printf("interrupts %lu\n", (unsigned long)count);
	else printf("gave up waiting\n");
	fflush(stdout);
}

static void lose(const char *how)
{
	open_all();
	int fds[2] = { eventfd(0, 0), eventfd(0, 0) };
	if (strcmp(how, "disabled") && trigger(fds, 2)) fail("SET_IRQS");
	if (!strcmp(how, "master")) command(2);
	if (!strcmp(how, "reset")) { if (ioctl(device, VFIO_DEVICE_RESET)) fail("reset"); command(6); }
	if (!strcmp(how, "beyond")) reg(0x04, 2);
	reg(0x04, 1);
	reg(0x04, 1);
	if (!strcmp(how, "killed")) kill(getpid(), SIGKILL);
	if (!strcmp(how, "interrupted")) { printf("waiting\n"); fflush(stdout); for (;;) pause(); }
	wait_for(fds[1]);
}

static volatile sig_atomic_t stopped;
static void stop(int signal) { stopped = signal; }

/* Its own bytes at the IOVA that the others use as well, to the device and back; its own interrupts, each of them. 0 rounds: until SIGTERM. */
static void pattern(int rounds)
{
	open_all();
	unsigned seed = 0;
	for (const char *c = name; *c; c++) seed = seed * 31 + *c;
	unsigned char *at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map(at, 0x100000, PAGES * PAGE)) fail("MAP_DMA");
	int fds[2] = { eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK) };
	if (trigger(fds, 2)) fail("SET_IRQS");
	long wrong = 0, sent = 0;
	uint64_t arrived = 0, count;
	signal(SIGTERM, stop);
	for (int i = 0; (i < rounds || rounds == 0) && !stopped; i++) {
		unsigned from = (rand_r(&seed) % 8) * PAGE + rand_r(&seed) % 100, length = 16 + rand_r(&seed) % 3000;
		unsigned to = 8 * PAGE + (rand_r(&seed) % 7) * PAGE;
		for (unsigned b = 0; b < length; b++) at[from + b] = rand_r(&seed);
		memset(at + to, 0, length);
		if (dma(0x100000 + from, 0x400, length, 0) != 1 || dma(0x100000 + to, 0x400, length, 1) != 1) wrong++;
		if (memcmp(at + from, at + to, length)) wrong++;
		for (int n = rand_r(&seed) % 4; n > 0; n--) { reg(0x04, i & 1); sent++; }
		if (read(fds[0], &count, 8) == 8) arrived += count;
		if (read(fds[1], &count, 8) == 8) arrived += count;
	}
	printf("%s: %ld wrong, %ld sent, %ld missing\n", name, wrong, sent, sent - (long)arrived);
}

/* Maps, enables and fires until it is killed. */
static void victim(void)
{
	open_all();
	char *at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *shared = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	uint64_t iova = 0x100000;
	for (unsigned i = 0;; i++, iova += 2 * PAGES * PAGE) {
		uint32_t ioas[3] = { 12, 0, 0 };
		int fds[2] = { eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK) };
		map(at, iova, PAGES * PAGE);
		map(shared, iova + PAGES * PAGE, PAGES * PAGE);
		ioctl(iommufd, _IO(';', 0x81), ioas);
		struct { uint32_t size, flags, ioas, reserved; uint64_t user, length, iova; } m = { 40, 7, ioas[2], 0, (uintptr_t)at, PAGES * PAGE, iova };
		ioctl(iommufd, _IO(';', 0x85), &m);
		trigger(fds, 2);
		reg(0x04, i & 1);
		dma(iova, 0, 64, i & 1);
		if (i % 8 == 7) trigger(NULL, 0);
		close(fds[0]);
		close(fds[1]);
	}
}

/* Its children are killed at any moment, one after the other. */
static void kills(int rounds, unsigned seed)
{
	for (int i = 0; i < rounds; i++) {
		pid_t child = fork();
		if (child == 0) { prctl(PR_SET_NAME, "victim"); victim(); }
		usleep(rand_r(&seed) % 30000);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	printf("killed %d\n", rounds);
}

int main(int argc, char **argv)
{
	if (argc < 3) return 2;
	name = argv[1];
	const char *what = argv[2];
	int number = argc > 3 ? atoi(argv[3]) : 0;
	if (!strcmp(what, "pattern")) pattern(number);
	else if (!strcmp(what, "kills")) kills(number ? number : 40, argc > 4 ? atoi(argv[4]) : 1);
	else if (!strcmp(what, "twice")) {
		open_all();
		int second = open(group_path, O_RDWR);
		printf("second %d %s\n", second < 0 ? -1 : 0, second < 0 ? strerror(errno) : "");
	} else if (!strcmp(what, "hold")) {
		open_all();
		printf("held\n"); fflush(stdout);
		char byte;
		read(0, &byte, 1);
	} else if (!strcmp(what, "open")) { open_all(); printf("opened\n"); }
	else lose(what);
	return 0;
}
