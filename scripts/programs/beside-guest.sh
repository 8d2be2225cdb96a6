#!/bin/bash
# Runs QEMU, and when its guest is ready looks at the device with the simulated host's own eyes, as an administrator would.
coproc guest { exec "$@" 2>&1; }
console=${guest[0]} keyboard=${guest[1]}
while IFS= read -r line <&"$console"; do
  printf '%s\n' "$line"
  case $line in
  *"guest: ready"*)
    echo "host: $(cat /sys/kernel/iommu_groups/1/reserved_regions | tr '\n' ' ')"
    lspci -vv -s 01:00.0 2>/dev/null | grep -A 1 -E 'MSI(-X)?: Enable\+|driver in use' | while read -r part; do [ -n "$part" ] && echo "host: $part"; done
    echo go >&"$keyboard"
    ;;
  esac
done
wait
