/* Drives devices by mapped BARs alone, as drivers in user space do. It knows nothing of belfry. One argument says what to do. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/vfio.h>

#define BAR(n, at) (((off_t)(n) << 40) + (at))

static int container, group, device;

static void fail(const char *what) { printf("%s: %s\n", what, strerror(errno)); exit(3); }

static void open_all(void)
{
	container = open("/dev/vfio/vfio", O_RDWR);
	group = open("/dev/vfio/1", O_RDWR);
	if (container < 0 || group < 0) fail("open");
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) fail("setup");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "0000:01:00.0");
	if (device < 0) fail("device");
	uint16_t command = 6;
	pwrite(device, &command, 2, BAR(7, 4));
}

static void *map_bar(int index, size_t *size)
{
	struct vfio_region_info info = { .argsz = sizeof info, .index = index };
	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info)) fail("region");
	if (!(info.flags & VFIO_REGION_INFO_FLAG_MMAP)) { printf("BAR %d cannot be mapped\n", index); exit(4); }
	void *at = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, info.offset);
	if (at == MAP_FAILED) fail("mmap");
	if (size) *size = info.size;
	return at;
}

static volatile uint32_t *edu;

static uint32_t factorial(uint32_t n)
{
	edu[0x08 / 4] = n;
	while (edu[0x20 / 4] & 1) ;
	return edu[0x08 / 4];
}

static void *worker(void *argument)
{
	uintptr_t right = 0;
	for (int i = 0; i < 200; i++) right += edu[0] == 0x010000ed;
	return (void *)right;
}

static int wait_for(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t count = 0;
	return poll(&p, 1, 5000) == 1 && read(fd, &count, 8) == 8 ? (int)count : -1;
}

static void do_edu(void)
{
	open_all();
	edu = map_bar(0, NULL);
	printf("id %08x\n", edu[0]);
	edu[1] = 0x12345678;
	printf("liveness %08x\n", edu[1]);
	printf("narrow %02x %04x\n", *(volatile uint8_t *)edu, *(volatile uint16_t *)edu);
	printf("factorial %u\n", factorial(10));
	char bytes[sizeof(struct vfio_irq_set) + 4];
	struct vfio_irq_set *set = (void *)bytes;
	int fd = eventfd(0, EFD_NONBLOCK);
	*set = (struct vfio_irq_set){ .argsz = sizeof bytes, .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, .index = VFIO_PCI_MSI_IRQ_INDEX, .count = 1 };
	memcpy(set->data, &fd, 4);
	if (ioctl(device, VFIO_DEVICE_SET_IRQS, set)) fail("irqs");
	edu[0x60 / 4] = 0x40;
	printf("interrupt %d", wait_for(fd));
	printf(" status %x", edu[0x24 / 4]);
	edu[0x64 / 4] = 0x40;
	printf(" then %x\n", edu[0x24 / 4]);

	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	strcpy(page, "by way of the device");
	struct vfio_iommu_type1_dma_map map = { .argsz = sizeof map, .flags = 3, .vaddr = (uintptr_t)page, .iova = 0x100000, .size = 4096 };
	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map)) fail("map");
	volatile uint64_t *dma = (void *)((char *)edu + 0x80);
	dma[0] = 0x100000; dma[1] = 0x40000; dma[2] = 21; dma[3] = 1;
	while (edu[0x98 / 4] & 1) usleep(1000);
	dma[0] = 0x40000; dma[1] = 0x100800; dma[3] = 7;
	printf("dma interrupt %d", wait_for(fd));
	printf(" status %x %s\n", edu[0x24 / 4], page + 0x800);
	edu[0x64 / 4] = 0x100;

	pthread_t threads[4];
	uintptr_t right = 0;
	for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, worker, NULL);
	for (int i = 0; i < 4; i++) { void *sum; pthread_join(threads[i], &sum); right += (uintptr_t)sum; }
	printf("threads %lu\n", (unsigned long)right);
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		printf("child %08x", edu[0]);
		edu[1] = 1;
		printf(" %08x\n", edu[1]);
		fflush(stdout);
		_exit(7);
	}
	int status = 0;
	waitpid(child, &status, 0);
	printf("child ended %d, liveness %08x\n", WEXITSTATUS(status), edu[1]);
}

/* Every form on trapped memory and on plain memory: the processor's own answer is the expected one. */
struct state { uint64_t rax, rcx, rdx, flags; uint8_t xmm[16], memory[64]; };

#define CASE(text) do { \
	struct state s[2]; \
	for (int side = 0; side < 2; side++) for (int trial = 0; trial < 1; trial++) { \
		uint8_t *at = side ? bar + 64 : plain; \
		memcpy(at, seedbytes, 64); \
		uint64_t a = rax, c = rcx, d = rdx, f = 0; \
		__asm__ volatile("movdqu %[x], %%xmm1\n\tpush %[fl]\n\tpopf\n\t" text "\n\tpushf\n\tpop %[f]\n\tmovdqu %%xmm1, %[xo]" \
			: "+a"(a), "+c"(c), "+d"(d), [f] "=&r"(f), [xo] "=m"(s[side].xmm) \
			: "D"(at), [x] "m"(vector), [fl] "r"(flags) : "memory", "cc", "xmm1"); \
		s[side].rax = a; s[side].rcx = c; s[side].rdx = d; s[side].flags = f & 0x8d5; \
		memcpy(s[side].memory, at, 64); \
	} \
	cases++; \
	if (memcmp(&s[0], &s[1], sizeof s[0])) { \
		printf("differs: %s: rax %lx %lx rcx %lx %lx rdx %lx %lx flags %lx %lx\n", text, s[0].rax, s[1].rax, s[0].rcx, s[1].rcx, s[0].rdx, s[1].rdx, s[0].flags, s[1].flags); \
		differ++; \
	} } while (0)
#define ALU(name) CASE(name "b %%al, 3(%%rdi)"); CASE(name "w %%cx, 2(%%rdi)"); CASE(name "l %%edx, (%%rdi)"); CASE(name "q %%rcx, 8(%%rdi)"); \
	CASE(name "b 1(%%rdi), %%ah"); CASE(name "w (%%rdi), %%dx"); CASE(name "l 4(%%rdi), %%eax"); CASE(name "q (%%rdi), %%rdx"); \
	CASE(name "b $0x81, (%%rdi)"); CASE(name "l $0x7fffffff, 4(%%rdi)"); CASE(name "q $-5, (%%rdi)"); CASE(name "w $0x8000, 6(%%rdi)")
#define UNARY(name) CASE(name "b (%%rdi)"); CASE(name "w 2(%%rdi)"); CASE(name "l 4(%%rdi)"); CASE(name "q (%%rdi)")

static void do_instructions(void)
{
	open_all();
	map_bar(0, NULL);
	uint8_t *bar = map_bar(4, NULL), seedbytes[64], vector[16];
	static uint8_t plain[64] __attribute__((aligned(64)));
	int cases = 0, differ = 0;
	srand(7);
	for (int round = 0; round < 12; round++) {
		uint64_t rax = 0, rcx = 0, rdx = 0;
		for (int i = 0; i < 64; i++) seedbytes[i] = round < 2 ? (round ? 0xff : 0) : rand();
		for (int i = 0; i < 16; i++) vector[i] = rand();
		for (int i = 0; i < 8; i++) { rax = rax << 8 | (rand() & 0xff); rcx = rcx << 8 | (rand() & 0xff); rdx = rdx << 8 | (rand() & 0xff); }
		if (round % 4 == 1) memcpy(&rax, seedbytes, 8);
		uint64_t flags = 0x202 | (round & 1) | (round & 2 ? 0x80 : 0) | (round & 4 ? 0x40 : 0);
		ALU("add"); ALU("or"); ALU("adc"); ALU("sbb"); ALU("and"); ALU("sub"); ALU("xor"); ALU("cmp");
		UNARY("not"); UNARY("neg"); UNARY("inc"); UNARY("dec");
		CASE("movb (%%rdi), %%ah"); CASE("movw 1(%%rdi), %%cx"); CASE("movl 3(%%rdi), %%edx"); CASE("movq 5(%%rdi), %%rax");
		CASE("movb %%ch, 9(%%rdi)"); CASE("movw %%dx, 7(%%rdi)"); CASE("movl %%eax, 1(%%rdi)"); CASE("movq %%rcx, 3(%%rdi)");
		CASE("movb $0x55, (%%rdi)"); CASE("movw $0x1234, (%%rdi)"); CASE("movl $0x89abcdef, (%%rdi)"); CASE("movq $-2, (%%rdi)");
		CASE("movzbl (%%rdi), %%eax"); CASE("movzwq (%%rdi), %%rax"); CASE("movsbw (%%rdi), %%ax"); CASE("movsbq (%%rdi), %%rcx"); CASE("movswl (%%rdi), %%edx"); CASE("movslq (%%rdi), %%rdx");
		CASE("testb %%al, (%%rdi)"); CASE("testl $0x80000000, (%%rdi)"); CASE("testq %%rcx, (%%rdi)");
		CASE("xchgb %%al, (%%rdi)"); CASE("xchgl %%ecx, (%%rdi)"); CASE("xchgq %%rdx, (%%rdi)");
		CASE("lock xaddl %%ecx, (%%rdi)"); CASE("lock xaddb %%cl, (%%rdi)"); CASE("lock cmpxchgl %%ecx, (%%rdi)"); CASE("cmpxchgq %%rdx, (%%rdi)"); CASE("lock cmpxchgb %%dl, 8(%%rdi)");
		CASE("btl $7, (%%rdi)"); CASE("lock btsl $31, (%%rdi)"); CASE("btrq $40, (%%rdi)"); CASE("btcw $3, (%%rdi)");
		CASE("cmovel (%%rdi), %%eax"); CASE("cmovneq (%%rdi), %%rcx"); CASE("cmovsw (%%rdi), %%dx"); CASE("cmovbl (%%rdi), %%edx"); CASE("cmovgl (%%rdi), %%edx"); CASE("cmovbel (%%rdi), %%edx");
		CASE("movbe (%%rdi), %%eax"); CASE("movbe %%rcx, (%%rdi)"); CASE("movbe (%%rdi), %%cx"); CASE("movnti %%rax, (%%rdi)");
		CASE("movups (%%rdi), %%xmm1"); CASE("movaps 16(%%rdi), %%xmm1"); CASE("movdqu %%xmm1, 1(%%rdi)"); CASE("movdqa %%xmm1, 16(%%rdi)");
		CASE("movd (%%rdi), %%xmm1"); CASE("movq (%%rdi), %%xmm1"); CASE("movd %%xmm1, (%%rdi)"); CASE("movq %%xmm1, (%%rdi)"); CASE("movss (%%rdi), %%xmm1"); CASE("movsd (%%rdi), %%xmm1"); CASE("movss %%xmm1, (%%rdi)"); CASE("movsd %%xmm1, (%%rdi)");
		CASE("movlps (%%rdi), %%xmm1"); CASE("movhps (%%rdi), %%xmm1"); CASE("movlpd %%xmm1, (%%rdi)"); CASE("movhpd %%xmm1, (%%rdi)"); CASE("movntdq %%xmm1, 16(%%rdi)"); CASE("movntps %%xmm1, (%%rdi)"); CASE("lddqu (%%rdi), %%xmm1");
		CASE("mov $5, %%ecx\n\tmov %%rdi, %%rdx\n\trep stosw\n\tsub %%rdx, %%rdi\n\tmov %%rdi, %%rcx\n\tmov %%rdx, %%rdi\n\txor %%edx, %%edx");
		CASE("push %%rsi\n\tmov %%rdi, %%rsi\n\tlea 32(%%rdi), %%rdx\n\txchg %%rdx, %%rdi\n\tmov $4, %%ecx\n\trep movsl\n\tmov %%rdx, %%rdi\n\tsub %%rdx, %%rsi\n\tmov %%rsi, %%rdx\n\tpop %%rsi");
		CASE("push %%rsi\n\tmov %%rdi, %%rsi\n\tlodsb\n\tlodsl\n\tpop %%rsi\n\ttest %%eax, %%eax");
		CASE("mov $3, %%ecx\n\tmovl (%%rdi,%%rcx,8), %%eax"); CASE("mov %%rdi, %%rdx\n\tmov $2, %%ecx\n\tmovb $1, -1(%%rdx,%%rcx,2)\n\txor %%edx, %%edx");
	}
	printf("%s of %d\n", differ ? "some differ" : "all alike", cases);
}

static sigjmp_buf back;
static siginfo_t seen;
static void on_bus(int number, siginfo_t *info, void *context) { (void)context; (void)number; seen = *info; siglongjmp(back, 1); }

static void do_revoked(void)
{
	open_all();
	edu = map_bar(0, NULL);
	struct sigaction action = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };
	sigaction(SIGBUS, &action, NULL);
	uint16_t command = 0;
	pwrite(device, &command, 2, BAR(7, 4));
	if (!sigsetjmp(back, 1)) { edu[1] = 0; puts("no signal"); }
	else printf("signal %d code %d at %ld\n", seen.si_signo, seen.si_code, (long)((char *)seen.si_addr - (char *)edu));
	command = 2;
	pwrite(device, &command, 2, BAR(7, 4));
	printf("again %08x\n", edu[0]);
	if (!sigsetjmp(back, 1)) { __asm__ volatile("fildl (%0)\n\tfstp %%st(0)" :: "r"(edu) : "memory"); puts("no signal"); }
	else printf("unknown instruction: signal %d\n", seen.si_signo);
	raise(SIGUSR1 == 10 ? SIGCONT : SIGCONT);
	if (!sigsetjmp(back, 1)) { kill(getpid(), SIGBUS); puts("no signal"); }
	else printf("sent: signal %d code %d\n", seen.si_signo, seen.si_code);
	printf("still %08x\n", edu[0]);
}

static void do_lifetimes(char *self)
{
	size_t size;
	open_all();
	edu = map_bar(0, &size);
	volatile uint32_t *moved = mremap((void *)edu, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (char *)mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	printf("moved %08x\n", moved[0]);
	pid_t child = fork();
	if (child == 0) { if (moved[0] != 0x010000ed) _exit(1); execl(self, self, "exit", (char *)NULL); _exit(2); }
	int status = 0;
	waitpid(child, &status, 0);
	printf("after fork and exec %d\n", WEXITSTATUS(status));
	close(device);
	printf("after close %08x\n", moved[0]);
	mprotect((void *)moved, 4096, PROT_READ);
	child = fork();
	if (child == 0) { (void)moved[0]; moved[1] = 1; _exit(0); }
	waitpid(child, &status, 0);
	printf("read only: signal %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	munmap((void *)moved, size);
	child = fork();
	if (child == 0) { moved[0] = 1; _exit(0); }
	waitpid(child, &status, 0);
	printf("unmapped: signal %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	close(group);
	group = open("/dev/vfio/1", O_RDWR);
	puts(group >= 0 ? "group is free" : "group is held");
}

/* Children read and write registers until they are killed; the group must be free for the next one. */
static void do_storm(int rounds)
{
	int again = 0;
	srand(3);
	for (int i = 0; i < rounds; i++) {
		pid_t child = fork();
		if (child == 0) {
			open_all();
			edu = map_bar(0, NULL);
			pthread_t thread;
			pthread_create(&thread, NULL, worker, NULL);
			for (;;) edu[1] = edu[1] + 1;
		}
		usleep(rand() % 30000);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		int fd = open("/dev/vfio/1", O_RDWR);
		if (fd >= 0) again++;
		close(fd);
	}
	printf("free again %d of %d\n", again, rounds);
}

static void do_traced(void)
{
	pid_t child = fork();
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		open_all();
		struct vfio_region_info info = { .argsz = sizeof info, .index = 0 };
		ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info);
		void *at = mmap(NULL, info.size, PROT_READ, MAP_SHARED, device, info.offset);
		printf("flag %d mmap %s\n", !!(info.flags & VFIO_REGION_INFO_FLAG_MMAP), at == MAP_FAILED ? strerror(errno) : "works");
		fflush(stdout);
		_exit(0);
	}
	int status;
	waitpid(child, &status, 0);
}

static void do_speed(long n)
{
	open_all();
	edu = map_bar(0, NULL);
	struct timespec a, b;
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (long i = 0; i < n; i++) (void)edu[0];
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("us per access %.2f\n", ((b.tv_sec - a.tv_sec) * 1e9 + b.tv_nsec - a.tv_nsec) / 1e3 / n);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	setvbuf(stdout, NULL, _IONBF, 0);
	if (!strcmp(what, "edu")) do_edu();
	else if (!strcmp(what, "instructions")) do_instructions();
	else if (!strcmp(what, "revoked")) do_revoked();
	else if (!strcmp(what, "lifetimes")) do_lifetimes(argv[0]);
	else if (!strcmp(what, "storm")) do_storm(argc > 2 ? atoi(argv[2]) : 20);
	else if (!strcmp(what, "traced")) do_traced();
	else if (!strcmp(what, "speed")) do_speed(argc > 2 ? atol(argv[2]) : 20000);
	else if (!strcmp(what, "exit")) return 9;
	else return 2;
	return 0;
}
