/* A VFIO program as others write them: it knows nothing of belfry. One argument says what to do; it prints what it saw. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/vfio.h>

#define PAGE 4096
#define BAR(n, at) (((off_t)(n) << 40) + (at))

static int container, group, device;

static void say(const char *what, long result) { printf("%s %ld %s\n", what, result, result < 0 ? strerror(errno) : ""); fflush(stdout); }

static void open_all(void)
{
	container = open("/dev/vfio/vfio", O_RDWR);
	group = open("/dev/vfio/1", O_RDWR);
	if (container < 0 || group < 0) { say("open", -1); exit(3); }
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) { say("setup", -1); exit(3); }
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "0000:01:00.0");
	if (device < 0) { say("device", -1); exit(3); }
	uint16_t command = 6;
	pwrite(device, &command, 2, BAR(7, 4));
}

static void reg(int at, uint32_t value) { if (pwrite(device, &value, 4, BAR(0, at)) != 4) { say("register", -1); exit(3); } }
static uint32_t get(int at) { uint32_t value = 0; pread(device, &value, 4, BAR(0, at)); return value; }

/* bell: local memory is BAR 4; to_memory 2: from BAR 4 to the IOVA. 2 is done, 4 is failed. */
static uint32_t dma(uint64_t iova, uint32_t local, uint32_t length, int to_memory)
{
	reg(0x10, iova); reg(0x14, iova >> 32); reg(0x18, local); reg(0x1c, length); reg(0x20, 1 | (to_memory ? 2 : 0));
	for (int i = 0; i < 10000; i++) { uint32_t status = get(0x0c); if (status & 2) return status; }
	return 0;
}

static int map(void *at, uint64_t iova, size_t size)
{
	struct vfio_iommu_type1_dma_map m = { .argsz = sizeof m, .flags = 3, .vaddr = (uintptr_t)at, .iova = iova, .size = size };
	return ioctl(container, VFIO_IOMMU_MAP_DMA, &m);
}

static int eventfds(int *fds, int count)
{
	char bytes[sizeof(struct vfio_irq_set) + 4 * 8];
	struct vfio_irq_set *set = (void *)bytes;
	*set = (struct vfio_irq_set){ .argsz = sizeof *set + 4 * count, .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, .index = VFIO_PCI_MSIX_IRQ_INDEX, .count = count };
	memcpy(set->data, fds, 4 * count);
	return ioctl(device, VFIO_DEVICE_SET_IRQS, set);
}

static void do_basic(void)
{
	open_all();
	struct vfio_device_info info = { .argsz = sizeof info };
	say("info", ioctl(device, VFIO_DEVICE_GET_INFO, &info));
	printf("regions %u irqs %u\n", info.num_regions, info.num_irqs);
	uint32_t id = 0;
	say("config", pread(device, &id, 4, BAR(7, 0)));
	printf("id %08x bell %08x\n", id, get(0));
	int twice = open("/dev/vfio/1", O_RDWR);
	say("twice", twice);
	say("unknown", ioctl(container, _IO(';', 99)));
	say("fault", ioctl(device, VFIO_DEVICE_GET_INFO, (void *)8));
}

static void do_irq(void)
{
	open_all();
	int fds[2] = { eventfd(0, 0), eventfd(0, EFD_NONBLOCK) };
	say("enable", eventfds(fds, 2));
	for (int i = 0; i < 3; i++) reg(0x04, 1);
	struct pollfd p = { .fd = fds[1], .events = POLLIN };
	say("poll", poll(&p, 1, 5000));
	uint64_t count = 0;
	say("read", read(fds[1], &count, 8));
	printf("count %lu\n", (unsigned long)count);
	reg(0x04, 0);
	say("blocking", read(fds[0], &count, 8));
	printf("count %lu\n", (unsigned long)count);
}

static void do_dma(int flags)
{
	open_all();
	char *at = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	memset(at, 'a', 2 * PAGE);
	say("map", map(at, 0x100000, 2 * PAGE));
	pwrite(device, "written by the device", 22, BAR(4, 0));
	printf("dma %u\n", dma(0x100000 + PAGE - 8, 0, 22, 1));
	printf("memory %.22s\n", at + PAGE - 8);
	printf("unmapped %u\n", dma(0x900000, 0, 22, 1));
	/* The pages stay pinned when the program replaces them. */
	munmap(at, 2 * PAGE);
	char *again = mmap(at, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	memset(again, 'n', 2 * PAGE);
	printf("dma %u\n", dma(0x100000 + PAGE - 8, 0x100, 22, 0));
	char back[23] = "";
	pread(device, back, 22, BAR(4, 0x100));
	printf("pinned %s\n", back);
	pwrite(device, "ZZZZ", 4, BAR(4, 0));
	printf("dma %u\n", dma(0x100000, 0, 4, 1));
	printf("new page %.4s\n", again);
	printf("dma %u\n", dma(0x100000, 0x200, 4, 0));
	pread(device, back, 4, BAR(4, 0x200));
	printf("old page %.4s\n", back);
	struct vfio_iommu_type1_dma_unmap u = { .argsz = sizeof u, .iova = 0x100000, .size = 2 * PAGE };
	say("unmap", ioctl(container, VFIO_IOMMU_UNMAP_DMA, &u));
	printf("unmapped %lu\n", (unsigned long)u.size);
	say("hole", map((void *)0x10000, 0x100000, PAGE));
}

static void do_bar(void)
{
	open_all();
	struct vfio_region_info info = { .argsz = sizeof info, .index = 4 };
	ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info);
	char *bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, info.offset);
	say("mmap", bar == MAP_FAILED ? -1 : 0);
	strcpy(bar, "through the mapping");
	char back[32] = "";
	pread(device, back, 20, info.offset);
	printf("read %s\n", back);
	pwrite(device, "through pwrite", 15, info.offset + 64);
	printf("mapped %s\n", bar + 64);
	say("beyond", mmap(NULL, info.size * 2, PROT_READ, MAP_SHARED, device, info.offset) == MAP_FAILED ? -1 : 0);
	uint16_t command = 0;
	pwrite(device, &command, 2, BAR(7, 4));
	pid_t child = fork();
	if (child == 0) { volatile char byte = bar[0]; (void)byte; _exit(0); }
	int status = 0;
	waitpid(child, &status, 0);
	printf("decoding off: signal %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	command = 2;
	pwrite(device, &command, 2, BAR(7, 4));
	printf("decoding on: %s\n", bar);
}

static void do_files(void)
{
	open_all();
	int pipes[2];
	if (pipe(pipes)) exit(3);
	pid_t child = fork();
	if (child == 0) {
		char byte;
		close(pipes[1]);
		read(pipes[0], &byte, 1);
		printf("child's bell %08x\n", get(0));
		fflush(stdout);
		for (;;) pause();
	}
	close(device); close(group); close(container);
	say("held by the child", open("/dev/vfio/1", O_RDWR));
	write(pipes[1], "x", 1);
	usleep(200000);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	group = open("/dev/vfio/1", O_RDWR);
	printf("after its death %s\n", group >= 0 ? "open" : strerror(errno));
	int copy = dup(group);
	close(group);
	say("held by the copy", open("/dev/vfio/1", O_RDWR));
	struct vfio_group_status status = { .argsz = sizeof status };
	say("copy works", ioctl(copy, VFIO_GROUP_GET_STATUS, &status));
	close(copy);
	copy = open("/dev/vfio/1", O_RDWR);
	printf("after the copy %s\n", copy >= 0 ? "open" : strerror(errno));
}

/* A child maps, enables and fires until it is killed; what it held must be free for the next one. */
static void do_storm(int rounds)
{
	int free_again = 0;
	srand(rounds);
	for (int i = 0; i < rounds; i++) {
		pid_t child = fork();
		if (child == 0) {
			open_all();
			char *at = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			for (uint64_t iova = 0x100000;; iova += 16 * PAGE) {
				int fds[2] = { eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK) };
				map(at, iova, 16 * PAGE);
				eventfds(fds, 2);
				reg(0x04, 1);
				dma(iova, 0, 64, 1);
				close(fds[0]);
				close(fds[1]);
			}
		}
		usleep(rand() % 20000);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		int fd = open("/dev/vfio/1", O_RDWR);
		if (fd >= 0) free_again++;
		close(fd);
	}
	printf("free again %d of %d\n", free_again, rounds);
}

/* Requests with arguments that make no sense: each is answered. */
static void do_nonsense(int rounds)
{
	open_all();
	int iommufd = open("/dev/iommu", O_RDWR);
	int files[] = { container, group, device, iommufd };
	uint64_t words[64];
	long answered = 0;
	srand(1);
	for (int i = 0; i < rounds; i++) {
		for (int w = 0; w < 64; w++) words[w] = rand() % 4 ? rand() % 128 : (uint64_t)rand() << (rand() % 40);
		int request = 0x3b00 + rand() % 0xc0;
		void *argument = rand() % 8 ? (void *)words : (void *)(uintptr_t)rand();
		if (request == 0x3b66 || request == 0x3b69) continue;
		long result = ioctl(files[rand() % 4], request, argument);
		if (result >= -1) answered++;
	}
	close(iommufd);
	printf("answered %d\n", answered > 0);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	if (!strcmp(what, "basic")) do_basic();
	else if (!strcmp(what, "irq")) do_irq();
	else if (!strcmp(what, "dma-private")) do_dma(MAP_PRIVATE);
	else if (!strcmp(what, "dma-shared")) do_dma(MAP_SHARED);
	else if (!strcmp(what, "bar")) do_bar();
	else if (!strcmp(what, "files")) do_files();
	else if (!strcmp(what, "storm")) do_storm(argc > 2 ? atoi(argv[2]) : 30);
	else if (!strcmp(what, "nonsense")) do_nonsense(argc > 2 ? atoi(argv[2]) : 5000);
	else if (!strcmp(what, "kill")) { open_all(); kill(getpid(), SIGKILL); }
	else if (!strcmp(what, "status")) return 42;
	else if (!strcmp(what, "speed")) {
		open_all();
		struct timespec a, b;
		long n = argc > 2 ? atol(argv[2]) : 10000;
		clock_gettime(CLOCK_MONOTONIC, &a);
		for (long i = 0; i < n; i++) ioctl(container, VFIO_GET_API_VERSION);
		clock_gettime(CLOCK_MONOTONIC, &b);
		printf("us per request %.2f\n", ((b.tv_sec - a.tv_sec) * 1e9 + b.tv_nsec - a.tv_nsec) / 1e3 / n);
	} else return 2;
	return 0;
}
