#!/bin/busybox sh
# The first process of the guest: its kernel has found the drive that was passed through, and it is made to work.
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
export PATH=/bin
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
exec </dev/console >/dev/console 2>&1
stty -onlcr -echo 2>/dev/null

say() { echo "guest: $*"; }
say "$(uname -srm)"
for device in /sys/bus/pci/devices/*; do
  [ "$(cat $device/class)" = 0x010802 ] || continue
  say "${device##*/} $(cat $device/vendor):$(cat $device/device) driver $(basename "$(readlink $device/driver)")"
done
say "$(ls /dev/nvme0n1), $(cat /sys/block/nvme0n1/size) sectors, $(cat /sys/class/nvme/nvme0/model)"
dd if=/dev/urandom of=/tmp/data bs=64k count=32 2>/dev/null
dd if=/tmp/data of=/dev/nvme0n1 bs=64k count=32 conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
written=$(sha256sum </tmp/data | cut -c 1-16)
read=$(dd if=/dev/nvme0n1 bs=64k count=32 2>/dev/null | sha256sum | cut -c 1-16)
say "2 MiB written $written, read $read"
grep nvme /proc/interrupts | while read -r line; do say "$line"; done
# The host looks at the device while the guest's driver has it; then it says that it has.
say ready
read -r -t 60 answer
sync
poweroff -f
