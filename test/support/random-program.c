/*
 * Requests that are nearly right, or wrong in one place, or nonsense, on every kind of file that VFIO and iommufd have: each is answered, in bounded time.
 * random-program COUNT SEED; prints how many calls were made, how many did something, and the slowest.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <signal.h>
#include <unistd.h>
#include <linux/vfio.h>

#define PAGE 4096ull
#define ARENA (4096 * PAGE)
#define FILES 64
#define BAR(n, at) (((off_t)(n) << 40) + (at))

static uint64_t state;
static uint64_t word(void) { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return state * 0x2545f4914f6cdd1dull; }
static uint32_t below(uint32_t n) { return (word() >> 33) % n; }
static int chance(int percent) { return (int)below(100) < percent; }

/*
 * One letter a field: z the struct's size, f flags, m those of a mapping, F a feature's, i an object's id, n a small number, d a descriptor, D one of memory, o zero, u anything (4 bytes each);
 * P a pointer, V an IOVA, S a size (8 bytes each). Kinds: c container, g group, d device, i iommufd.
 */
struct request { int number; const char *fields; char kind; };
static const struct request requests[] = {
	{ 100, "", 'c' }, { 101, "n", 'c' }, { 102, "n", 'c' }, { 103, "zf", 'g' }, { 104, "d", 'g' }, { 105, "", 'g' }, { 106, "uuuu", 'g' }, { 107, "zfnnnn", 'd' }, { 108, "zfnnSV", 'd' },
	{ 109, "zfnn", 'd' }, { 110, "zfnnndddd", 'd' }, { 111, "", 'd' }, { 112, "zfSnn", 'c' }, { 112, "znnnnnnnn", 'd' }, { 113, "zmPVS", 'c' }, { 113, "zfndddd", 'd' }, { 114, "zfVS", 'c' }, { 114, "zfVSSSP", 'c' },
	{ 115, "", 'c' }, { 116, "zmVVdn", 'd' }, { 117, "zmVSPSSP", 'c' }, { 117, "zFnnnnnnnnnn", 'd' }, { 117, "zFVSSP", 'd' }, { 118, "zfdn", 'd' }, { 118, "zfdnP", 'd' }, { 119, "zfi", 'd' }, { 119, "zfin", 'd' }, { 120, "zf", 'd' }, { 120, "zfn", 'd' },
	{ 0x80, "zi", 'i' }, { 0x81, "zfi", 'i' }, { 0x82, "zinoP", 'i' }, { 0x83, "zmiiSVV", 'i' }, { 0x84, "zinoPV", 'i' }, { 0x85, "zmioPSV", 'i' }, { 0x86, "zioVSo", 'i' }, { 0x86, "zioVS", 'i' },
	{ 0x87, "znoniS", 'i' }, { 0x87, "znniS", 'i' }, { 0x88, "zino", 'i' }, { 0x88, "zin", 'i' }, { 0x89, "zfiiioonPio", 'i' }, { 0x8a, "zfinPuo", 'i' }, { 0x8b, "zfio", 'i' }, { 0x8c, "zfioVSSP", 'i' }, { 0x8d, "ziPnnno", 'i' },
	{ 0x8e, "zfii", 'i' }, { 0x8f, "zmiDSSV", 'i' }, { 0x90, "zfniiinoP", 'i' }, { 0x91, "ziiioV", 'i' }, { 0x92, "zo", 'i' }, { 0x93, "zfiniiioo", 'i' }, { 0x94, "zfininVS", 'i' }, { 0xa0, "zninVSSP", 'i' },
};
#define REQUESTS (int)(sizeof requests / sizeof *requests)

static int files[FILES], file_count, eventfds[4];
static char kinds[FILES];
static char *arena;
static int memory;
static uint32_t ids[16];
static long slowest, slowest_request;
static long done[256], piped, held;
/* Descriptors that this process was started with are others'. */
static char inherited[2048];

static void keep(int fd, char kind)
{
	if (fd < 0) return;
	int at = file_count < FILES ? file_count++ : below(FILES);
	if (kinds[at]) close(files[at]);
	files[at] = fd;
	kinds[at] = kind;
}

/* An index of a file, most often of this kind; -1 when nothing is open. */
static int file_of(char kind)
{
	if (!file_count) return -1;
	for (int tries = chance(90) ? 24 : 1; tries > 0; tries--) {
		int at = below(file_count);
		if (kinds[at] == kind || tries == 1) return at;
	}
	return 0;
}

static uint32_t id(void) { return chance(80) ? ids[below(16)] : below(40); }
static uint32_t descriptor(void) { return chance(50) ? eventfds[below(4)] : chance(70) && file_count ? files[below(file_count)] : below(8) ? below(2000) : -1u; }
static uint32_t flags(void) { return chance(65) ? 0 : chance(45) ? below(4) : chance(40) ? 1u << below(18) : chance(70) ? below(64) : (uint32_t)word(); }
static uint64_t iova(void)
{
	static const uint64_t places[] = { 0, 0x8000000, 0x80f0000, 0xfee00000, 0xfffff000, 1ull << 32, 1ull << 47, 1ull << 48, 1ull << 52, ~0ull, ~0ull - 4095, 1ull << 63 };
	if (chance(70)) return below(256) * PAGE;
	return places[below(12)] + (chance(50) ? 0 : below(16) * PAGE) + (chance(90) ? 0 : below(4096));
}
static uint64_t size(void)
{
	if (chance(70)) return (1 + below(64)) * PAGE;
	return chance(60) ? (1ull << below(64)) : chance(50) ? below(8192) : word();
}
static uint64_t pointer(void) { return chance(92) ? (uintptr_t)arena + below(2048) * PAGE + (chance(85) ? 0 : below(4096) & ~7) : chance(50) ? below(1 << 17) : word(); }

/* The struct as the request has it; how long it is. */
static uint32_t fill(char *at, const char *fields)
{
	uint32_t used = 0, four;
	uint64_t eight;
	for (const char *f = fields; *f; f++) used += *f == 'P' || *f == 'V' || *f == 'S' ? 8 : 4;
	uint32_t total = used;
	if (chance(4)) total = below(300);
	char *to = at;
	for (const char *f = fields; *f; f++) {
		if (*f == 'P' || *f == 'V' || *f == 'S') {
			eight = *f == 'P' ? pointer() : *f == 'V' ? iova() : size();
			if (chance(3)) eight = word();
			memcpy(to, &eight, 8); to += 8;
			continue;
		}
		switch (*f) {
		case 'z': four = total; break;
		case 'f': four = flags(); break;
		case 'F': four = chance(80) ? below(14) | 1u << (16 + below(3)) : flags(); break;
		case 'm': four = chance(40) ? 3 : chance(60) ? 7 : flags(); break;
		case 'i': four = id(); break;
		case 'n': four = below(chance(90) ? 8 : 4096); break;
		case 'd': four = descriptor(); break;
		/* A simulated file here would hold itself, and its device, for good: so it is on Linux (iopt_alloc_file_pages takes any file). */
		case 'D': four = chance(80) ? memory : eventfds[below(4)]; break;
		case 'o': four = 0; break;
		default: four = word(); break;
		}
		if (chance(2)) four = word();
		memcpy(to, &four, 4); to += 4;
	}
	return used;
}

static char group_path[64];

/* The group of the first device. */
static void find_group(void)
{
	char link[256] = "";
	if (readlink("/sys/bus/pci/devices/0000:01:00.0/iommu_group", link, sizeof link - 1) < 0 || !strrchr(link, '/')) exit(3);
	snprintf(group_path, sizeof group_path, "/dev/vfio/%s", strrchr(link, '/') + 1);
}

static void close_all(void)
{
	for (int i = 0; i < file_count; i++) { close(files[i]); kinds[i] = 0; }
	file_count = 0;
}

/* A group with its container, a cdev on an iommufd, and an iommufd alone. */
static void open_all(void)
{
	close_all();
	int type = chance(80) ? VFIO_TYPE1v2_IOMMU : VFIO_TYPE1_IOMMU;
	int container = open("/dev/vfio/vfio", O_RDWR), group = open(group_path, O_RDWR), busy = group < 0 && errno == EBUSY, iommufd = open("/dev/iommu", O_RDWR);
	int cdev = open("/dev/vfio/devices/vfio1", O_RDWR);
	held += busy;
	keep(container, 'c'); keep(group, 'g'); keep(iommufd, 'i'); keep(cdev, 'd');
	if (chance(90) && !ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) && !ioctl(container, VFIO_SET_IOMMU, type)) {
		int device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "0000:01:00.0");
		uint16_t command = 6;
		if (device >= 0) pwrite(device, &command, 2, BAR(7, 4));
		keep(device, 'd');
	}
	if (chance(90)) {
		uint32_t bind[4] = { 16, 0, iommufd, 0 };
		ioctl(cdev, _IO(';', 118), bind);
		uint32_t ioas[3] = { 12, 0, 0 };
		ioctl(iommufd, _IO(';', 0x81), ioas);
		uint32_t attach[3] = { 12, 0, ioas[2] };
		ioctl(cdev, _IO(';', 119), attach);
		ids[0] = bind[3]; ids[1] = ioas[2]; ids[2] = attach[2];
	}
}

static void timed(int number, const struct timespec *from)
{
	struct timespec to;
	clock_gettime(CLOCK_MONOTONIC, &to);
	long us = (to.tv_sec - from->tv_sec) * 1000000 + (to.tv_nsec - from->tv_nsec) / 1000;
	if (us > slowest) { slowest = us; slowest_request = number; }
}

/* Ids that requests answer with stand where a field o is, or where an i or n was. */
static void remember(const char *at, const char *fields)
{
	uint32_t value;
	for (const char *f = fields; *f; at += *f == 'P' || *f == 'V' || *f == 'S' ? 8 : 4, f++) {
		memcpy(&value, at, 4);
		if (value && value < 4096 && (*f == 'o' || (*f == 'n' && chance(5)))) ids[below(16)] = value;
	}
}

/* Interrupts: an action on data of one kind, for a few of them. */
static void fill_irqs(char *at)
{
	uint32_t count = chance(80) ? 1 + below(4) : below(70), data = chance(80) ? 4 : 1u << below(3), action = 8u << below(3);
	uint32_t head[5] = { 20 + (data == 4 ? 4 * count : data == 2 ? count : 0), data | (chance(60) ? 32 : action), below(5), chance(80) ? 0 : below(8), count };
	memcpy(at, head, 20);
	for (uint32_t i = 0; i < count && i < 64; i++) { uint32_t fd = data == 4 ? descriptor() : below(2); memcpy(at + 20 + (data == 4 ? 4 * i : i), &fd, 4); }
}

static long request(void)
{
	const struct request *r = &requests[below(REQUESTS)];
	char *at = arena + (2048 + below(16)) * PAGE;
	if (chance(2)) { for (int i = 0; i < 512; i += 8) { uint64_t w = word(); memcpy(at + i, &w, 8); } }
	fill(at, r->fields);
	if (r->number == 110 && chance(80)) fill_irqs(at);
	uintptr_t argument = (uintptr_t)at;
	if (r->number == 101 || r->number == 102) argument = chance(90) ? below(12) : word();
	else if (r->number == 106) strcpy(at, chance(90) ? "0000:01:00.0" : "0000:02:00.0");
	else if (chance(2)) argument = chance(50) ? (uintptr_t)arena + ARENA - below(64) : word();
	int index = file_of(r->kind), fd = index < 0 ? -1 : files[index];
	struct timespec from;
	clock_gettime(CLOCK_MONOTONIC, &from);
	long result = ioctl(fd, _IO(';', r->number), argument);
	timed(r->number, &from);
	if (result < 0) return result;
	done[r->number]++;
	if (r->number == 106 || (r->number == 117 && result > 0)) keep(result, r->number == 106 ? 'd' : 'x');
	remember(at, r->fields);
	if (r->number == 0x8e || r->number == 0x93) for (int i = 2; i < 8; i++) if (((int *)at)[i] >= 64 && ((int *)at)[i] < 2000 && !inherited[((int *)at)[i]]) keep(((int *)at)[i], 'q');
	return result;
}

static long access_file(void)
{
	int index = file_of(chance(50) ? 'd' : 'q'), fd = index < 0 ? -1 : files[index];
	char kind = index < 0 ? 0 : kinds[index];
	off_t at = BAR(below(10), below(2) ? below(256) & ~3 : word() & 0xfffff);
	size_t length = chance(80) ? 1u << below(4) : below(1 << 16);
	char *bytes = chance(97) ? arena + 3072 * PAGE : (char *)(uintptr_t)word();
	struct timespec from;
	clock_gettime(CLOCK_MONOTONIC, &from);
	int which = below(12);
	long result = -1;
	switch (which) {
	case 0: case 1: case 2: result = pread(fd, bytes, length, at); break;
	case 3: case 4: case 5:
		for (int i = 0; i < 16; i += 4) { uint32_t w = below(2) ? below(16) : (uint32_t)word(); memcpy(arena + 3072 * PAGE + i, &w, 4); }
		result = pwrite(fd, bytes, length, at); break;
	case 6: result = write(fd, bytes, length); break;
	case 7: result = lseek(fd, at, below(3)); break;
	case 8: {
		size_t room = PAGE << below(4);
		void *m = mmap(NULL, room, PROT_READ | (below(2) ? PROT_WRITE : 0), below(8) ? MAP_SHARED : MAP_PRIVATE, fd, at & ~(PAGE - 1));
		result = m == MAP_FAILED ? -1 : 0;
		if (m != MAP_FAILED) munmap(m, room);
		break;
	}
	case 9: if (below(4) == 0) { keep(dup(fd), kind); result = 0; } break;
	case 10: { struct iovec v[2] = { { bytes, length }, { arena + 3080 * PAGE, 64 } }; result = below(2) ? preadv(fd, v, 2, at) : pwritev(fd, v, 2, at); break; }
	case 11: { uint64_t count; result = read(eventfds[below(4)], &count, 8); break; }
	}
	if (result < 0 && errno == EPIPE && piped++ == 0) {
		char path[64], link[256] = "";
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		if (readlink(path, link, sizeof link - 1) < 0) strcpy(link, "?");
		printf("a pipe that nobody reads: access %d, descriptor %d of kind %c, %s\n", which, fd, kind, link);
	}
	timed(-1 - which, &from);
	return result;
}

static void drop(int at)
{
	close(files[at]);
	files[at] = files[--file_count];
	kinds[at] = kinds[file_count];
	kinds[file_count] = 0;
}

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 20000, well = 0;
	state = (argc > 2 ? strtoull(argv[2], NULL, 0) : 1) * 0x9e3779b97f4a7c15ull | 1;
	arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* Not all of it is mapped. */
	munmap(arena + 1024 * PAGE, 64 * PAGE);
	for (int i = 0; i < 2048; i++) inherited[i] = fcntl(i, F_GETFD) >= 0;
	memory = memfd_create("pages", MFD_CLOEXEC);
	ftruncate(memory, 64 * PAGE);
	find_group();
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < 4; i++) eventfds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct timespec from, to;
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (long i = 0; i < count; i++) {
		if (i % 1024 == 0) open_all();
		long result = chance(85) ? request() : access_file();
		if (result >= 0) well++;
		if (below(64) == 0 && file_count > 8) drop(4 + below(file_count - 4));
	}
	close_all();
	clock_gettime(CLOCK_MONOTONIC, &to);
	double us = ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / 1e3 / (count ? count : 1);
	int worked = 0;
	for (int i = 0; i < 256; i++) worked += done[i] > 0;
	printf("%ld calls, %ld did something, %d kinds of request did, %.1f us per call, slowest %ld us (%ld)\n", count, well, worked, us, slowest, slowest_request);
	if (argc > 3) for (int i = 0; i < 256; i++) if (done[i]) printf("%x: %ld\n", i, done[i]);
	if (held) printf("a group was still held %ld times after its last descriptor was closed\n", held);
	return piped > 0 || held > 0;
}
