/* A program that waits for page faults of a mock device in poll and epoll. Run under `belfry exec --iommufd-test`. */
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int iommu;

static int request(unsigned number, void *argument) { return ioctl(iommu, 0x3b00 | number, argument); }

static int ready(int fd) {
  struct pollfd one = {.fd = fd, .events = POLLIN | POLLOUT};
  return poll(&one, 1, 0) < 0 ? -1 : one.revents;
}

/* IOMMU_TEST_CMD: size, op, id, reserved, and a union. */
struct test { uint32_t size, op, id, reserved; uint32_t words[13]; uint32_t last; };

static void fault(uint32_t device, uint32_t group) {
  struct test cmd = {.size = sizeof(cmd), .op = 15, .words = {device, 0, group, 3, 0x1000}};
  request(0xa0, &cmd);
}

int main(void) {
  iommu = open("/dev/iommu", O_RDWR);
  struct { uint32_t size, flags, ioas; } ioas = {.size = 12};
  request(0x81, &ioas);
  struct test mock = {.size = sizeof(mock), .op = 2, .id = ioas.ioas};
  request(0xa0, &mock);
  uint32_t owner = mock.words[0], device = mock.words[2];
  struct { uint32_t size, flags, id, fd; } queue = {.size = 16};
  request(0x8e, &queue);
  int fd = queue.fd;
  struct { uint32_t size, flags, device, parent, out, reserved, type, length; uint64_t data; uint32_t fault, reserved2; } parent = {
      .size = 48, .flags = 1, .device = device, .parent = ioas.ioas};
  request(0x89, &parent);
  uint32_t data[2] = {1, 0};
  typeof(parent) nested = {.size = 48, .flags = 4, .device = device, .parent = parent.out, .type = 0xdead, .length = 8,
                           .data = (uintptr_t)data, .fault = queue.id};
  printf("nested %d\n", request(0x89, &nested));
  struct test replace = {.size = sizeof(replace), .op = 10, .id = owner, .words = {nested.out}};
  printf("replace %d\n", request(0xa0, &replace));
  printf("quiet %d\n", ready(fd));
  fault(device, 7);
  printf("fault %d\n", ready(fd));
  uint32_t record[10], answer[2] = {0, 0};
  printf("read %zd", read(fd, record, sizeof(record)));
  printf(" group %u, now %d\n", record[3], ready(fd));
  answer[0] = record[9];
  printf("answer %zd\n", write(fd, answer, sizeof(answer)));
  printf("seek %ld\n", (long)lseek(fd, 0, SEEK_CUR));
  fflush(stdout);
  /* A child sleeps until the parent's fault. */
  int told[2];
  pipe(told);
  if (fork() == 0) {
    int set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    write(told[1], "x", 1);
    int count = epoll_wait(set, &event, 1, 10000);
    printf("child woke for %d, events %u\n", count, event.events);
    printf("child read %zd", read(fd, record, sizeof(record)));
    printf(" group %u\n", record[3]);
    fflush(stdout);
    _exit(0);
  }
  char byte;
  read(told[0], &byte, 1);
  usleep(50000);
  fault(device, 8);
  wait(NULL);
  close(fd);
  return 0;
}
