"""A VFIO program in Python with nothing but its standard library: a container, a group, the edu device."""
import ctypes
import fcntl
import mmap
import os
import select
import struct
import sys

BDF = sys.argv[1] if len(sys.argv) > 1 else "0000:01:00.0"
VFIO = 0x3B64  # _IO(';', 100)
PAGE, IOVA = 4096, 0x100000


def ioctl(fd, number, arg=0):
    return fcntl.ioctl(fd, VFIO + number, arg)


def region(device, index):
    """Offset and size by VFIO_DEVICE_GET_REGION_INFO."""
    info = bytearray(struct.pack("=IIIIQQ", 32, 0, index, 0, 0, 0))
    ioctl(device, 8, info)
    _, _, _, _, size, offset = struct.unpack("=IIIIQQ", info)
    return offset, size


def wait_for(event):
    if not select.select([event], [], [], 5)[0]:
        sys.exit("no interrupt within 5 s")
    return struct.unpack("Q", os.read(event, 8))[0]


group = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{BDF}/iommu_group"))
container = os.open("/dev/vfio/vfio", os.O_RDWR)
group = os.open(f"/dev/vfio/{group}", os.O_RDWR)
ioctl(group, 4, struct.pack("i", container))
ioctl(container, 2, 3)  # VFIO_TYPE1v2_IOMMU
# With a buffer that can be written to, fcntl.ioctl gives back what the kernel returned: the descriptor.
device = ioctl(group, 6, bytearray(BDF.encode() + b"\0"))
config, _ = region(device, 7)
bar, _ = region(device, 0)
os.pwrite(device, struct.pack("H", 6), config + 4)


def read32(offset):
    return struct.unpack("I", os.pread(device, 4, bar + offset))[0]


def write32(offset, value):
    os.pwrite(device, struct.pack("I", value), bar + offset)


write32(4, 0x12345678)
print(f"edu {read32(0):#x}, liveness {read32(4):#x}")

libc = ctypes.CDLL(None)
event = libc.eventfd(0, os.O_CLOEXEC)
ioctl(device, 10, struct.pack("=IIIIIi", 24, 0x24, 1, 0, 1, event))
write32(0x20, 0x80)
write32(0x08, 10)
count = wait_for(event)
print(f"10! = {read32(0x08)}, interrupts {count}, status {read32(0x24):#x}")
write32(0x64, 1)

memory = mmap.mmap(-1, 2 * PAGE)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
ioctl(container, 13, struct.pack("=IIQQQ", 32, 3, address, IOVA, 2 * PAGE))
memory[:PAGE] = bytes((i * 7 + 3) & 0xFF for i in range(PAGE))
for source, destination, command in ((IOVA, 0x40000, 0), (0x40000, IOVA + PAGE, 2)):
    for offset, value in ((0x80, source), (0x84, 0), (0x88, destination), (0x8C, 0), (0x90, PAGE)):
        write32(offset, value)
    write32(0x98, command | 1 | 4)
    wait_for(event)
    write32(0x64, 0x100)
same = memory[:PAGE] == memory[PAGE:]
print(f"DMA of {PAGE} bytes there and back: {'same' if same else 'different'}")
