/** The manual pages. They are data without imports, so that `--help` loads nothing else. */

const GENERAL = `NAME
    belfry - VFIO with virtual MSI doorbells, on a simulated Linux host

SYNOPSIS
    belfry [ring] [options]
    belfry exec [options] -- PROGRAM [ARGUMENT...]
    belfry help [command] | --help | --version

DESCRIPTION
    Hands a PCI device of a simulated host to user space and makes its MSI and MSI-X
    interrupts arrive, on Arm as on x86. Needs no hardware, no root and no native module.

COMMANDS
    ring    Pass a device through, ring its vectors, show every hop, then do the same
            without the doorbell. The default.
    exec    Run an unmodified VFIO program on the simulated host.

EXIT STATUS
    0   everything sent was delivered
    1   a problem was found: an interrupt was lost, a set-up was refused, a file is wrong
    2   the command line is wrong

SEE ALSO
    belfry help ring; README.md; docs/doorbell.md
`;

const RING = `NAME
    belfry ring - pass a device through, ring its vectors, show where each interrupt goes

SYNOPSIS
    belfry ring [--host PRESET|FILE] [--device NAME|CAPTURE] [--doorbell auto|window|none|0xIOVA]
                [--iommu type1|iommufd|nested] [--vectors N] [--count N] [--no-ack]
                [--allow-unsafe-interrupts] [--guest FILE] [--explain] [--json] [--trace FILE]
    belfry ring --kernel linux [--device 0000:BB:DD.F] [--iommu type1|iommufd|nested]
                [--doorbell window|0xIOVA] [--vectors N] [--count N] [--json]

DESCRIPTION
    Boots a simulated Linux on a simulated machine, opens the device through VFIO as a VMM
    does (container, group, device), gives it a doorbell, starts a guest whose driver enables
    the vectors, and rings them in turn. Each interrupt travels from the device's MSI-X entry
    through the IOMMU's tables in memory, the interrupt controller, the kernel, an eventfd and
    an irqfd to the guest CPU, which acknowledges it before the next of its vector is sent.
    Then the same is done without the doorbell, and the IOMMU's event record is shown.

OPTIONS
    --kernel sim|linux
        sim (default), or linux: this machine's own kernel and a device that vfio-pci has, which
        rings itself where it can (an NVMe drive, edu), else by VFIO's loopback. docs/linux.md.
    --host PRESET|FILE
        arm-its (default): SMMUv3 and GICv3 ITS. arm-v2m: SMMUv3 and GICv2m.
        x86: VT-d with interrupt remapping. Anything else is read as a JSON host file.
    --device NAME|CAPTURE
        A device to put at 0000:01:00.0. Models, which behave: bell (default), edu, ioat, nvme-drive,
        pci-endpoint-test. Captures, which have a real one's registers only: nvme, igb, edu-capture,
        a file with the output of \`lspci -xxxx -vv\`, or a sysfs \`config\` file.
        Options of a model follow its name: bell,msix=2048 or nvme-drive,size=64M or
        nvme-drive,file=disk.img. docs/devices.md has all of them.
    --doorbell auto|window|none|0xIOVA
        auto (default): the MSI address that the guest was given, wherever it is free.
        window: the kernel's own window at 0x0800_0000, as Linux 7.2 does.
        none: the kernel before the RFC; the controller's physical address in the vector.
        0xIOVA: this address.
    --iommu type1|iommufd|nested
        What the guest's memory is mapped into. type1 (default): container and group.
        iommufd: the device's own file, bound to /dev/iommu and attached to an IOAS.
        nested: over that IOAS a stage 1 in the VMM's memory, which maps the doorbell's address
        onto the kernel's window; needs an SMMUv3 with S2FWB or CANWBS. Plain MSI by PREPARE only.
    --vectors N
        Vectors that the guest asks for, 1 to 2048. Default: 3, or what the device has.
    --count N
        Interrupts to send, 1 to 1e12, over all vectors in turn. Default: one for each vector.
    --no-ack
        The guest does not acknowledge: what coalesces is counted.
    --allow-unsafe-interrupts
        The parameter of that name of vfio_iommu_type1 and of iommufd, for hosts whose MSIs are
        not isolated.
    --guest FILE
        The guest's memory map as JSON. Default: QEMU's virt (Arm) or q35 (x86).
    --explain
        Of a refused set-up: which check of which call it was, and with which options the same
        set-up passes, found by trying them.
    --json
        One JSON object a line; the last is {"kind":"summary", ...} with sent = delivered +
        coalesced + pending + lost, and losses by reason. Addresses are hex strings.
    --trace FILE
        Writes Chrome trace JSON of the first 10,000 interrupts, for ui.perfetto.dev.

EXIT STATUS
    0   everything sent was delivered        1   a problem was found        2   usage

EXAMPLES
    belfry
    belfry ring --host arm-v2m --allow-unsafe-interrupts --vectors 16 --count 100000
    belfry ring --device nvme --doorbell window
    belfry ring --doorbell 0x90000000 --json | tail -n 1
    belfry ring --host x86 --vectors 512 --count 1000000
    belfry ring --iommu iommufd --doorbell window
    belfry ring --iommu nested --doorbell 0x712345000
    belfry ring --host arm-v2m --explain
`;

const EXEC = `NAME
    belfry exec - run an unmodified VFIO program on a simulated host

SYNOPSIS
    belfry exec [--host PRESET|FILE] [--device NAME[,slot=PLACE][,OPTION=VALUE...]]...
                [--abi linux-7.2|belfry] [--doorbell window|none] [--allow-unsafe-interrupts]
                [--iommufd-test] [--explain] [--json] [--quiet] [--trace FILE]
                -- PROGRAM [ARGUMENT...]

DESCRIPTION
    Starts the program, dynamically or statically linked, and answers its system calls on
    /dev/vfio, /sys/bus/pci, /sys/kernel/iommu_groups and their like from a simulated Linux;
    all other calls go to the real kernel. Needs Linux 5.9 and the optional package koffi; no
    root, no kernel module, no preloaded library. docs/exec.md says what works.

OPTIONS
    --host PRESET|FILE
        arm-its (default), arm-v2m, x86, or a JSON host file.
    --device NAME[,slot=PLACE][,OPTION=VALUE...]
        A device as for ring, in place of the host's own. Given again, the next one is at
        0000:02:00.0, and so on. slot=0000:05:00.0 puts it behind the fifth root port,
        slot=0000:00:10.0 on the root bus.
    --abi linux-7.2|belfry
        What the VFIO ABI speaks: Linux 7.2's alone (default), or with the doorbell request.
    --allow-unsafe-interrupts
        vfio_iommu_type1.allow_unsafe_interrupts=1.
    --doorbell window|none
        window (default): as Linux 7.2, at 0x0800_0000 where messages pass the IOMMU. none: the
        kernel before the RFC, on which such messages are lost.
    --iommufd-test
        Answers IOMMU_TEST_CMD, as a kernel with CONFIG_IOMMUFD_TEST: for the kernel's selftests.
    --explain
        Says on standard error why each refused call was refused.
    --json
        What belfry itself says is one JSON object a line: {"kind":"refusal", ...} with --explain,
        {"kind":"lost", ...}, and last {"kind":"summary", ...}.
    --quiet
        Neither the last line nor those about lost interrupts.
    --trace FILE
        Writes Chrome trace JSON of every answered call and every hop, for ui.perfetto.dev.

EXIT STATUS
    The program's own. 127: it was not found; 126: it cannot be executed; 1: programs cannot be
    run here; 2: usage.

EXAMPLES
    belfry exec -- ls -l /dev/vfio /sys/kernel/iommu_groups
    belfry exec --host x86 --device edu --explain -- ./my-driver 0000:01:00.0
`;

const PAGES: Readonly<Record<string, string>> = { ring: RING, exec: EXEC };

export const isCommand = (name: string): boolean => Object.hasOwn(PAGES, name);

export const helpText = (command?: string): string => (command === undefined ? GENERAL : (PAGES[command] ?? GENERAL));

/** The line that follows a usage error. */
export const usageLine = (command = 'ring'): string =>
  command === 'exec'
    ? 'usage: belfry exec [options] -- PROGRAM [ARGUMENT...]; see belfry help exec'
    : ringUsage(command);

const ringUsage = (command: string): string =>
  `usage: belfry ring [--host PRESET|FILE] [--device NAME|CAPTURE] [--doorbell auto|window|none|0xIOVA] …; see belfry help ${command}`;
