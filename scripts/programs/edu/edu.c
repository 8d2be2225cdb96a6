/*
 * A VFIO program of the plain kind: a container, a group, the edu device. Factorial, an MSI, and DMA there and back, by mapped
 * registers. Built statically: there is nothing that a preloaded library could get hold of.
 */
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define IOVA 0x100000ULL
#define PAGE 4096

static void need(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static uint64_t wait_for(int event)
{
	struct pollfd ready = {.fd = event, .events = POLLIN};
	uint64_t count = 0;

	need(poll(&ready, 1, 5000) == 1, "no interrupt within 5 s");
	need(read(event, &count, sizeof(count)) == sizeof(count), "read of the eventfd");
	return count;
}

static int group_of(const char *bdf)
{
	char path[128], target[256], node[64];
	ssize_t length;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	length = readlink(path, target, sizeof(target) - 1);
	need(length > 0, path);
	target[length] = 0;
	snprintf(node, sizeof(node), "/dev/vfio/%s", strrchr(target, '/') + 1);
	return open(node, O_RDWR);
}

static void dma(volatile uint32_t *bar, uint64_t from, uint64_t to, uint32_t command, int event)
{
	bar[0x80 / 4] = from;
	bar[0x84 / 4] = 0;
	bar[0x88 / 4] = to;
	bar[0x8c / 4] = 0;
	bar[0x90 / 4] = PAGE;
	bar[0x98 / 4] = command | 1 | 4;
	wait_for(event);
	bar[0x64 / 4] = 0x100;
}

int main(int argc, char **argv)
{
	const char *bdf = argc > 1 ? argv[1] : "0000:01:00.0";
	int container = open("/dev/vfio/vfio", O_RDWR), group = group_of(bdf), device, event;
	struct vfio_region_info region = {.argsz = sizeof(region), .index = VFIO_PCI_BAR0_REGION_INDEX};
	struct vfio_region_info config = {.argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX};
	struct vfio_iommu_type1_dma_map map = {.argsz = sizeof(map), .flags = 3, .iova = IOVA, .size = 2 * PAGE};
	struct {
		struct vfio_irq_set set;
		int fd;
	} irq = {.set = {.argsz = sizeof(irq), .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			 .index = VFIO_PCI_MSI_IRQ_INDEX, .count = 1}};
	volatile uint32_t *bar;
	unsigned char *memory;
	uint16_t command = 6;
	uint64_t count;

	need(container >= 0 && group >= 0, "container and group");
	need(ioctl(container, VFIO_GET_API_VERSION) == VFIO_API_VERSION, "VFIO_GET_API_VERSION");
	need(!ioctl(group, VFIO_GROUP_SET_CONTAINER, &container), "VFIO_GROUP_SET_CONTAINER");
	need(!ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), "VFIO_SET_IOMMU");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	need(device >= 0, "VFIO_GROUP_GET_DEVICE_FD");
	need(!ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region), "BAR 0");
	need(!ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config), "configuration space");
	need(pwrite(device, &command, 2, config.offset + 4) == 2, "COMMAND");
	bar = mmap(NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, region.offset);
	need(bar != MAP_FAILED, "mmap of BAR 0");
	bar[1] = 0x12345678;
	printf("edu %#x, liveness %#x\n", bar[0], bar[1]);

	irq.fd = event = eventfd(0, EFD_CLOEXEC);
	need(!ioctl(device, VFIO_DEVICE_SET_IRQS, &irq), "VFIO_DEVICE_SET_IRQS");
	bar[0x20 / 4] = 0x80;
	bar[0x08 / 4] = 10;
	count = wait_for(event);
	printf("10! = %u, interrupts %llu, status %#x\n", bar[0x08 / 4], (unsigned long long)count, bar[0x24 / 4]);
	bar[0x64 / 4] = 1;

	memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	map.vaddr = (uintptr_t)memory;
	need(!ioctl(container, VFIO_IOMMU_MAP_DMA, &map), "VFIO_IOMMU_MAP_DMA");
	for (int i = 0; i < PAGE; i++)
		memory[i] = i * 7 + 3;
	dma(bar, IOVA, 0x40000, 0, event);
	dma(bar, 0x40000, IOVA + PAGE, 2, event);
	printf("DMA of %d bytes there and back: %s\n", PAGE, memcmp(memory, memory + PAGE, PAGE) ? "different" : "same");
	return 0;
}
