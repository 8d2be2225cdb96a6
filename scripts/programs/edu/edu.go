// A VFIO program in Go, with nothing but its standard library: iommufd, the device's own node, the edu device by mapped registers.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	page = 4096
	iova = 0x100000
)

func need(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

// request makes an ioctl of type ';' with fields of 32 bits, or the bytes as they are, and gives back what the kernel wrote.
func request(fd int, number uintptr, fields ...uint32) []uint32 {
	words := append([]uint32{uint32(len(fields)+1) * 4}, fields...)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), ';'<<8|number, uintptr(unsafe.Pointer(&words[0])))
	if errno != 0 {
		need(errno, fmt.Sprintf("ioctl %#x", number))
	}
	return words
}

func long(words []uint32, at int) int64 { return int64(words[at]) | int64(words[at+1])<<32 }

func main() {
	bdf := "0000:01:00.0"
	if len(os.Args) > 1 {
		bdf = os.Args[1]
	}
	nodes, _ := filepath.Glob("/sys/bus/pci/devices/" + bdf + "/vfio-dev/vfio*")
	if len(nodes) != 1 {
		need(syscall.ENODEV, "vfio-dev of "+bdf)
	}
	device, err := syscall.Open("/dev/vfio/devices/"+filepath.Base(nodes[0]), syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	need(err, "the device's node")
	iommufd, err := syscall.Open("/dev/iommu", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	need(err, "/dev/iommu")

	request(device, 118, 0, uint32(iommufd), 0)      // VFIO_DEVICE_BIND_IOMMUFD
	ioas := request(iommufd, 0x81, 0, 0)[2]           // IOMMU_IOAS_ALLOC
	request(device, 119, 0, ioas)                     // VFIO_DEVICE_ATTACH_IOMMUFD_PT
	config := request(device, 108, 0, 7, 0, 0, 0, 0, 0) // VFIO_DEVICE_GET_REGION_INFO
	bar0 := request(device, 108, 0, 0, 0, 0, 0, 0, 0)
	_, err = syscall.Pwrite(device, []byte{6, 0}, long(config, 6)+4)
	need(err, "COMMAND")
	mapped, err := syscall.Mmap(device, long(bar0, 6), int(long(bar0, 4)), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	need(err, "mmap of BAR 0")
	register := func(at int) *uint32 { return (*uint32)(unsafe.Pointer(&mapped[at])) }
	read := func(at int) uint32 { return atomic.LoadUint32(register(at)) }
	write := func(at int, value uint32) { atomic.StoreUint32(register(at), value) }
	write(4, 0x12345678)
	fmt.Printf("edu %#x, liveness %#x\n", read(0), read(4))

	event, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		need(errno, "eventfd")
	}
	interrupts := os.NewFile(event, "eventfd")
	wait := func() uint64 {
		// The runtime's own epoll waits, as it does for a socket.
		need(interrupts.SetReadDeadline(time.Now().Add(5*time.Second)), "deadline")
		var count [8]byte
		_, err := interrupts.Read(count[:])
		need(err, "no interrupt")
		return binary.LittleEndian.Uint64(count[:])
	}
	request(device, 110, 0x24, 1, 0, 1, uint32(event)) // VFIO_DEVICE_SET_IRQS
	write(0x20, 0x80)
	write(0x08, 10)
	count := wait()
	fmt.Printf("10! = %d, interrupts %d, status %#x\n", read(0x08), count, read(0x24))
	write(0x64, 1)

	memory, err := syscall.Mmap(-1, 0, 2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	need(err, "mmap")
	address := uint64(uintptr(unsafe.Pointer(&memory[0])))
	// IOMMU_IOAS_MAP: FIXED_IOVA, WRITEABLE, READABLE.
	request(iommufd, 0x85, 7, ioas, 0, uint32(address), uint32(address>>32), 2*page, 0, iova, 0)
	for i := 0; i < page; i++ {
		memory[i] = byte(i*7 + 3)
	}
	dma := func(from, to, command uint32) {
		for i, value := range []uint32{from, 0, to, 0, page} {
			write(0x80+4*i, value)
		}
		write(0x98, command|1|4)
		wait()
		write(0x64, 0x100)
	}
	dma(iova, 0x40000, 0)
	dma(0x40000, iova+page, 2)
	same := "different"
	if bytes.Equal(memory[:page], memory[page:]) {
		same = "same"
	}
	fmt.Printf("DMA of %d bytes there and back: %s\n", page, same)
}
