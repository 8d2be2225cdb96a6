/** VFIO_IRQ_SET_ACTION_PREPARE as posted for Linux in January 2025 (docs/doorbell.md, "Preparing a vector"), on a guest's stage 1. */
import { describe, expect, it } from 'vitest';
import { VFIO_IRQ_SET_DATA_MSI_IOVA as MSI_IOVA, VFIO_IRQ_SET_ACTION_PREPARE as PREPARE } from '../../uapi/belfry.ts';
import * as uapi from '../../uapi/vfio.ts';
import { named } from './testing.ts';
import { Guest, STAGE1 } from './testing-guest.ts';
import { CdevLab } from './testing-machine.ts';

const { VFIO_IRQ_SET_DATA_NONE: NONE, VFIO_IRQ_SET_DATA_BOOL: BOOL, VFIO_IRQ_SET_DATA_EVENTFD: EVENTFD } = uapi;
const { VFIO_IRQ_SET_ACTION_TRIGGER: TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX: MSIX } = uapi;
const INTX = uapi.VFIO_PCI_INTX_IRQ_INDEX;
const ERR = uapi.VFIO_PCI_ERR_IRQ_INDEX;
const WINDOW = 0x800_0000;
/** Where the guest maps its doorbell; GITS_TRANSLATER is 0x40 into the page. */
const MINE = 0x760_0000;

function call(lab: CdevLab, flags: number, start: number, count: number, data: Uint8Array, index = MSIX) {
  const bytes = new Uint8Array(uapi.vfio_irq_set.size + data.length);
  uapi.vfio_irq_set.patch(bytes, { argsz: bytes.length, flags, index, start, count });
  bytes.set(data, uapi.vfio_irq_set.size);
  return named(lab.client.ioctl(lab.devices[0]!, uapi.VFIO_DEVICE_SET_IRQS, bytes));
}

const words = (iovas: readonly (number | bigint)[]) => new Uint8Array(BigUint64Array.from(iovas.map(BigInt)).buffer);
const prepare = (lab: CdevLab, start: number, iovas: readonly (number | bigint)[], index = MSIX) =>
  call(lab, PREPARE | MSI_IOVA, start, iovas.length, words(iovas), index);
const unset = (lab: CdevLab, start: number, count: number, index = MSIX) =>
  call(lab, PREPARE | NONE, start, count, new Uint8Array(0), index);
const disable = (lab: CdevLab) => call(lab, TRIGGER | NONE, 0, 0, new Uint8Array(0));
const field = (lab: CdevLab) => lab.host.context.refusals.last?.field;

/** A device that is nested, whose stage 1 has the window's page at MINE. */
function nested(): Guest {
  const guest = new Guest();
  guest.vdevice();
  guest.map(MINE, WINDOW);
  guest.attach(guest.nested(STAGE1));
  return guest;
}

describe('PREPARE', () => {
  it('EINVAL with abi linux-7.2, action and data alike: flags that Linux does not know', () => {
    const lab = new CdevLab('arm-its', { abi: 'linux-7.2' });
    lab.bind(0);
    expect([prepare(lab, 0, [MINE]), field(lab)]).toEqual(['EINVAL', 'flags']);
    expect([unset(lab, 0, 1), field(lab)]).toEqual(['EINVAL', 'flags']);
    expect([call(lab, TRIGGER | MSI_IOVA, 0, 1, words([0])), field(lab)]).toEqual(['EINVAL', 'flags']);
  });

  it('refuses in order: size, ENOTTY, EOPNOTSUPP without nesting, EINVAL for the other index, count, EOPNOTSUPP for other data, reach', () => {
    const { lab, iommufd } = nested();
    expect([call(lab, PREPARE | MSI_IOVA, 0, 1, new Uint8Array(7)), field(lab)]).toEqual(['EINVAL', 'argsz']);
    expect([call(lab, PREPARE | MSI_IOVA | NONE, 0, 1, words([MINE])), field(lab)]).toEqual(['EINVAL', 'flags']);
    expect([prepare(lab, 4, [MINE]), field(lab)]).toEqual(['EINVAL', 'start']);
    expect(call(lab, PREPARE | TRIGGER | MSI_IOVA, 0, 1, words([MINE]))).toBe('ENOTTY');
    expect(prepare(lab, 0, [], ERR)).toBe('ENOTTY');
    expect([call(lab, PREPARE | BOOL, 0, 1, new Uint8Array(1)), field(lab)]).toEqual(['EOPNOTSUPP', 'flags']);
    expect([call(lab, PREPARE | EVENTFD, 0, 1, new Uint8Array(4)), field(lab)]).toEqual(['EOPNOTSUPP', 'flags']);
    expect([unset(lab, 0, 0), field(lab)]).toEqual(['EINVAL', 'count']);
    expect([prepare(lab, 0, [2n ** 52n]), field(lab)]).toEqual(['EINVAL', 'data']);
    iommufd.attach(lab.devices[0]!, 2);
    expect(unset(lab, 0, 0)).toBe('EOPNOTSUPP');
    expect(prepare(lab, 0, [2n ** 52n])).toBe('EOPNOTSUPP');
  });

  it('EINVAL while another kind of interrupt is enabled, before EINVAL for the count and the address', () => {
    const { lab } = nested();
    const event = lab.client.eventfd();
    if (typeof event === 'number') throw new Error('no eventfd');
    const fd = new Uint8Array(Int32Array.of(event.fd).buffer);
    expect(call(lab, TRIGGER | EVENTFD, 0, 1, fd, INTX)).toBe(0);
    expect([prepare(lab, 0, [2n ** 52n]), field(lab)]).toEqual(['EINVAL', 'index']);
    expect([unset(lab, 0, 0), field(lab)]).toEqual(['EINVAL', 'index']);
    expect(prepare(lab, 0, [], INTX)).toBe('ENOTTY');
    expect(call(lab, TRIGGER | NONE, 0, 0, new Uint8Array(0), INTX)).toBe(0);
    lab.enable(0, 1);
    expect(prepare(lab, 0, [MINE])).toBe(0);
  });

  it('DATA_MSI_IOVA goes with no other action: EINVAL, and nothing is triggered', () => {
    const { lab } = nested();
    const { rung } = lab.enable(0, 1);
    expect([call(lab, TRIGGER | MSI_IOVA, 0, 1, words([0])), field(lab)]).toEqual(['EINVAL', 'flags']);
    expect(rung()).toEqual([0]);
  });
});

describe('a vector that was prepared', () => {
  it('carries the guest’s address, others the window’s, and its interrupt arrives through both stages', () => {
    const { lab } = nested();
    expect(prepare(lab, 1, [MINE + 0x40, MINE])).toBe(0);
    const { result, rung } = lab.enable(0);
    expect(result).toBe(0);
    expect([0, 1, 2, 3].map((vector) => lab.message(0, vector)[0])).toEqual([
      WINDOW + 0x40,
      MINE + 0x40,
      MINE + 0x40,
      WINDOW + 0x40,
    ]);
    for (const vector of [0, 1, 2, 3]) lab.ring(0, vector);
    // The guest maps its own address alone, not the window's.
    expect(rung()).toEqual([0, 1, 1, 0]);
  });

  it('takes a new address at its next enable, not before; un-set, or all ones, it gets the window’s', () => {
    const { lab } = nested();
    prepare(lab, 0, [MINE, MINE, MINE]);
    lab.enable(0, 3);
    expect(prepare(lab, 0, [0x700_0000])).toBe(0);
    expect(unset(lab, 1, 1)).toBe(0);
    expect(prepare(lab, 2, [2n ** 64n - 1n])).toBe(0);
    expect([0, 1, 2].map((vector) => lab.message(0, vector)[0])).toEqual(new Array(3).fill(MINE + 0x40));
    expect(disable(lab)).toBe(0);
    lab.enable(0, 3);
    expect([0, 1, 2].map((vector) => lab.message(0, vector)[0])).toEqual([0x700_0040, WINDOW + 0x40, WINDOW + 0x40]);
  });

  it('may be prepared before the attach; in a page table of the kernel’s it has the window', () => {
    const guest = new Guest();
    const { lab } = guest;
    expect(prepare(lab, 0, [MINE])).toBe(0);
    lab.iommufd.attach(lab.devices[0]!, guest.ioas);
    const first = lab.enable(0, 1);
    expect(lab.message(0, 0)[0]).toBe(WINDOW + 0x40);
    lab.ring(0, 0);
    expect(first.rung()).toEqual([1]);
    disable(lab);
    guest.vdevice();
    guest.map(MINE, WINDOW);
    guest.attach(guest.nested(STAGE1));
    const second = lab.enable(0, 1);
    expect(lab.message(0, 0)[0]).toBe(MINE + 0x40);
    lab.ring(0, 0);
    expect(second.rung()).toEqual([1]);
  });

  it('is forgotten at the last close', () => {
    const guest = nested();
    const { lab } = guest;
    const hwpt = guest.nested(STAGE1);
    prepare(lab, 0, [MINE]);
    lab.client.close(lab.devices[0]!);
    expect(lab.client.open('/dev/vfio/devices/vfio0')).toBe(lab.devices[0]);
    guest.vdevice({ dev_id: Number(lab.bind(0)) });
    guest.attach(hwpt);
    expect(lab.enable(0, 1).result).toBe(0);
    expect([lab.group(0).domain.type, lab.message(0, 0)[0]]).toEqual(['nested', WINDOW + 0x40]);
  });
});
