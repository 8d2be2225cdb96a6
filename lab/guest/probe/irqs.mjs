/** SET_IRQS: the order of its checks, what each kind takes in which state, and which interrupts then arrive. */
import * as u from 'belfry/uapi';

const NONE = u.VFIO_IRQ_SET_DATA_NONE;
const BOOL = u.VFIO_IRQ_SET_DATA_BOOL;
const EVENTFD = u.VFIO_IRQ_SET_DATA_EVENTFD;
const MASK = u.VFIO_IRQ_SET_ACTION_MASK;
const UNMASK = u.VFIO_IRQ_SET_ACTION_UNMASK;
const TRIGGER = u.VFIO_IRQ_SET_ACTION_TRIGGER;
const KINDS = ['INTX', 'MSI', 'MSIX', 'ERR', 'REQ'];

export class IrqProbe {
  constructor(p, device) {
    this.p = p;
    this.device = device;
  }

  set(name, index, flags, start, count, payload = [], argsz = null) {
    const bytes = new Uint8Array(20 + Math.max(payload.length * 4, 64));
    const words = flags & EVENTFD ? new Uint8Array(Int32Array.from(payload).buffer) : Uint8Array.from(payload);
    u.vfio_irq_set.patch(bytes, { argsz: argsz ?? 20 + words.length, flags, index, start, count });
    bytes.set(words, 20);
    return this.p.ioctl(name, this.device, u.VFIO_DEVICE_SET_IRQS, bytes);
  }

  off(index, name = `${KINDS[index]} off`) {
    return this.set(name, index, NONE | TRIGGER, 0, 0);
  }
}

/** Nothing is enabled before, nor after. */
export function probeChecks(p, device) {
  const q = new IrqProbe(p, device);
  const e = p.eventfd();
  for (let index = 0; index < 6; index++) {
    const kind = KINDS[index] ?? index;
    q.set(`${kind}: argsz 19`, index, NONE | TRIGGER, 0, 0, [], 19);
    q.off(index, `${kind}: off while off`);
    q.set(`${kind}: off, start 1`, index, NONE | TRIGGER, 1, 0);
    q.set(`${kind}: NONE, count 1 while off`, index, NONE | TRIGGER, 0, 1);
    q.set(`${kind}: BOOL, count 1 while off`, index, BOOL | TRIGGER, 0, 1, [1]);
    q.set(`${kind}: BOOL, count 0`, index, BOOL | TRIGGER, 0, 0);
    q.set(`${kind}: EVENTFD, count 0`, index, EVENTFD | TRIGGER, 0, 0);
    q.set(`${kind}: no data`, index, TRIGGER, 0, 1);
    q.set(`${kind}: two kinds of data`, index, NONE | BOOL | TRIGGER, 0, 1, [1]);
    q.set(`${kind}: no action`, index, NONE, 0, 1);
    q.set(`${kind}: two actions`, index, NONE | MASK | UNMASK, 0, 1);
    q.set(`${kind}: unknown flag`, index, NONE | TRIGGER | 0x40, 0, 1);
    q.set(`${kind}: count overflows`, index, NONE | TRIGGER, 1, 0xffff_ffff);
    q.set(`${kind}: count -1`, index, NONE | TRIGGER, 0, 0xffff_ffff);
    q.set(`${kind}: payload too short`, index, EVENTFD | TRIGGER, 0, 1, [], 20);
    q.set(`${kind}: bad fd`, index, EVENTFD | TRIGGER, 0, 1, [9999]);
    q.set(`${kind}: fd of no eventfd`, index, EVENTFD | TRIGGER, 0, 1, [device]);
    q.set(`${kind}: fd -2`, index, EVENTFD | TRIGGER, 0, 1, [-2]);
    q.off(index, `${kind}: off again`);
    q.set(`${kind}: MASK while off`, index, NONE | MASK, 0, 1);
    q.set(`${kind}: UNMASK while off`, index, NONE | UNMASK, 0, 1);
    q.set(`${kind}: MASK by eventfd`, index, EVENTFD | MASK, 0, 1, [e.fd]);
    q.set(`${kind}: UNMASK by eventfd while off`, index, EVENTFD | UNMASK, 0, 1, [e.fd]);
    q.set(`${kind}: MASK count 0`, index, NONE | MASK, 0, 0);
    q.set(`${kind}: start 70`, index, EVENTFD | TRIGGER, 70, 1, [e.fd]);
  }
  p.kernel.close(e.fd);
}

/** MSI or MSI-X with `count` vectors. */
export function probeMessages(p, device, index, count) {
  const q = new IrqProbe(p, device);
  const e = [p.eventfd(), p.eventfd(), p.eventfd()];
  const [a, b, c] = e.map(({ fd }) => fd);
  const counts = (name) => {
    p.kernel.settle();
    p.note(
      name,
      e.map((eventfd) => eventfd.drain()),
    );
  };
  const other = index === 1 ? 2 : 1;
  q.set('enable one', index, EVENTFD | TRIGGER, 0, 1, [a]);
  q.set('INTX while it is on', 0, EVENTFD | TRIGGER, 0, 1, [b]);
  q.set('the other kind while it is on', other, EVENTFD | TRIGGER, 0, 1, [b]);
  q.set('loopback NONE', index, NONE | TRIGGER, 0, 1);
  counts('loopback NONE arrived');
  q.set('loopback BOOL 0', index, BOOL | TRIGGER, 0, 1, [0]);
  q.set('loopback BOOL 2', index, BOOL | TRIGGER, 0, 1, [2]);
  counts('loopback BOOL arrived');
  q.set('loopback of all', index, NONE | TRIGGER, 0, count);
  counts('loopback of all arrived');
  q.set('another eventfd', index, EVENTFD | TRIGGER, 0, 1, [b]);
  q.set('loopback', index, NONE | TRIGGER, 0, 1);
  counts('another eventfd: arrived');
  q.set('no eventfd', index, EVENTFD | TRIGGER, 0, 1, [-1]);
  q.set('loopback without an eventfd', index, NONE | TRIGGER, 0, 1);
  counts('no eventfd: arrived');
  q.set('eventfd again', index, EVENTFD | TRIGGER, 0, 1, [a]);
  q.set('bad fd while on', index, EVENTFD | TRIGGER, 0, 1, [9999]);
  q.set('loopback after a bad fd', index, NONE | TRIGGER, 0, 1);
  counts('after a bad fd: arrived');
  q.set('EVENTFD, count 0, while on', index, EVENTFD | TRIGGER, 0, 0);
  q.set('MASK while on', index, NONE | MASK, 0, 1);
  q.set('beyond the count', index, EVENTFD | TRIGGER, count, 1, [a]);
  q.off(index, 'off');
  q.off(index, 'off twice');
  q.set('enable with a bad fd', index, EVENTFD | TRIGGER, 0, 1, [9999]);
  q.off(index, 'off after that');
  q.set('enable with -1', index, EVENTFD | TRIGGER, 0, 1, [-1]);
  q.off(index, 'off after -1');
  if (count > 3) severalMessages(q, index, count, [a, b, c], counts);
  for (const { fd } of e) p.kernel.close(fd);
}

function severalMessages(q, index, count, [a, b, c], counts) {
  q.set('enable three', index, EVENTFD | TRIGGER, 0, 3, [a, b, c]);
  q.set('loopback of three', index, NONE | TRIGGER, 0, 3);
  counts('three: arrived');
  q.set('loopback of the middle by BOOL', index, BOOL | TRIGGER, 0, 3, [0, 1, 0]);
  counts('the middle: arrived');
  q.set('a fourth while on', index, EVENTFD | TRIGGER, 3, 1, [a]);
  q.set('the last while on', index, EVENTFD | TRIGGER, count - 1, 1, [a]);
  q.set('a block with a bad fd in it', index, EVENTFD | TRIGGER, 0, 3, [b, 9999, a]);
  q.set('loopback after that', index, NONE | TRIGGER, 0, 3);
  counts('after a block with a bad fd: arrived');
  q.off(index, 'three off');
  q.set('start 2 first', index, EVENTFD | TRIGGER, 2, 1, [c]);
  q.set('loopback of three, one set', index, NONE | TRIGGER, 0, 3);
  counts('start 2 first: arrived');
  q.set('then vector 0', index, EVENTFD | TRIGGER, 0, 1, [a]);
  q.off(index, 'start 2 off');
  q.set('start 3 count 0', index, EVENTFD | TRIGGER, 3, 0);
  q.set('vector 1 of these', index, EVENTFD | TRIGGER, 1, 1, [b]);
  q.off(index, 'start 3 off');
  q.set('the same eventfd twice', index, EVENTFD | TRIGGER, 0, 2, [a, a]);
  q.set('loopback of both', index, NONE | TRIGGER, 0, 2);
  counts('the same eventfd twice: arrived');
  q.off(index, 'twice off');
  q.set(
    'all',
    index,
    EVENTFD | TRIGGER,
    0,
    count,
    Array.from({ length: count }, () => a),
  );
  q.set('loopback of all of them', index, NONE | TRIGGER, 0, count);
  counts('all: arrived');
  q.set(
    'more than all',
    index,
    EVENTFD | TRIGGER,
    0,
    count + 1,
    Array.from({ length: count + 1 }, () => a),
  );
  q.off(index, 'all off');
}

export function probeNotices(p, device, index) {
  const q = new IrqProbe(p, device);
  const e = p.eventfd();
  const arrived = (name) => {
    p.kernel.settle();
    p.note(name, e.drain());
  };
  q.set('set', index, EVENTFD | TRIGGER, 0, 1, [e.fd]);
  q.set('NONE, count 1', index, NONE | TRIGGER, 0, 1);
  arrived('NONE arrived');
  q.set('BOOL 0', index, BOOL | TRIGGER, 0, 1, [0]);
  q.set('BOOL 1', index, BOOL | TRIGGER, 0, 1, [1]);
  arrived('BOOL arrived');
  q.set('BOOL, count 0', index, BOOL | TRIGGER, 0, 0);
  q.set('EVENTFD, count 0', index, EVENTFD | TRIGGER, 0, 0);
  q.set('set again', index, EVENTFD | TRIGGER, 0, 1, [e.fd]);
  q.set('set to -1', index, EVENTFD | TRIGGER, 0, 1, [-1]);
  q.set('NONE after -1', index, NONE | TRIGGER, 0, 1);
  q.set('set once more', index, EVENTFD | TRIGGER, 0, 1, [e.fd]);
  q.set('NONE, count 0', index, NONE | TRIGGER, 0, 0);
  q.set('NONE, count 0, again', index, NONE | TRIGGER, 0, 0);
  p.kernel.close(e.fd);
}

/** edu: interrupts that the device itself raises, by MSI and by its line. */
export async function probeEdu(p, device) {
  const q = new IrqProbe(p, device);
  const config = 7 * 2 ** 40;
  const write32 = (offset, value) => p.kernel.pwrite(device, new Uint8Array(Uint32Array.of(value).buffer), offset);
  const e = p.eventfd();
  const resample = p.eventfd();
  p.kernel.pwrite(device, Uint8Array.of(6, 0), config + 4);
  q.set('MSI on', 1, EVENTFD | TRIGGER, 0, 1, [e.fd]);
  write32(0x60, 1);
  await p.arrived('MSI', e);
  write32(0x60, 2);
  await p.arrived('MSI while the status is not acknowledged', e);
  write32(0x64, 3);
  p.kernel.pwrite(device, Uint8Array.of(2, 0), config + 4);
  write32(0x60, 1);
  await p.arrived('MSI without bus master', e, 200);
  write32(0x64, 1);
  p.kernel.pwrite(device, Uint8Array.of(6, 0), config + 4);
  write32(0x60, 1);
  await p.arrived('MSI with bus master again', e);
  write32(0x64, 1);
  p.pread('MSI capability while on', device, config + 0x40, 14);
  p.pwrite('MSI address by the owner', device, config + 0x44, [0, 0xb0, 0xad, 0xde]);
  write32(0x60, 1);
  await p.arrived('MSI after the owner wrote the address', e);
  write32(0x64, 1);
  p.pwrite('MSI disable by the owner', device, config + 0x42, [0x80, 0]);
  write32(0x60, 1);
  await p.arrived('MSI after the owner disabled it', e, 200);
  write32(0x64, 1);
  p.pwrite('MSI enable by the owner', device, config + 0x42, [0x81, 0]);
  write32(0x60, 1);
  await p.arrived('MSI after the owner enabled it', e);
  write32(0x64, 1);
  q.off(1);
  q.set('INTX on', 0, EVENTFD | TRIGGER, 0, 1, [e.fd]);
  q.set('MSI while INTX is on', 1, EVENTFD | TRIGGER, 0, 1, [e.fd]);
  write32(0x60, 1);
  await p.arrived('INTX', e);
  p.pread('STATUS and COMMAND while INTX is masked', device, config + 4, 4);
  q.set('UNMASK with the line up', 0, NONE | UNMASK, 0, 1);
  await p.arrived('INTX fires again', e);
  write32(0x64, 1);
  q.set('UNMASK with the line down', 0, NONE | UNMASK, 0, 1);
  await p.arrived('INTX is quiet', e, 200);
  q.set('MASK', 0, NONE | MASK, 0, 1);
  write32(0x60, 1);
  await p.arrived('INTX while masked', e, 200);
  q.set('UNMASK BOOL 0', 0, BOOL | UNMASK, 0, 1, [0]);
  await p.arrived('INTX after BOOL 0', e, 200);
  q.set('UNMASK BOOL 1', 0, BOOL | UNMASK, 0, 1, [1]);
  await p.arrived('INTX after BOOL 1', e);
  q.set('UNMASK by eventfd', 0, EVENTFD | UNMASK, 0, 1, [resample.fd]);
  q.set('UNMASK by eventfd, again', 0, EVENTFD | UNMASK, 0, 1, [resample.fd]);
  resample.signal();
  await p.arrived('INTX after the eventfd', e);
  write32(0x64, 1);
  resample.signal();
  await p.arrived('INTX with the line down, after the eventfd', e, 200);
  q.set('UNMASK by eventfd -1', 0, EVENTFD | UNMASK, 0, 1, [-1]);
  q.set('loopback', 0, NONE | TRIGGER, 0, 1);
  await p.arrived('INTX by loopback', e, 200);
  q.set('INTX to -1', 0, EVENTFD | TRIGGER, 0, 1, [-1]);
  q.off(0);
  q.off(0, 'INTX off twice');
  for (const { fd } of [e, resample]) p.kernel.close(fd);
}
