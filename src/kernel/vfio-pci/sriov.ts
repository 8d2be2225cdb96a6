/**
 * SR-IOV in the hands of vfio-pci (vfio_pci_core.c vfio_pci_core_sriov_configure, vfio_pci_validate_vf_token). The physical function can disrupt
 * its virtual ones and see what they carry, so the users of both agree on a token; whoever cannot show it gets neither.
 */
import type { KernelContext } from '../context.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { PciDevice } from '../pci/pci-device.ts';
import type { VirtualFunctions } from '../pci/sriov.ts';
import type { LowPower } from './low-power.ts';

/** struct vfio_pci_vf_token. A new one is random on Linux: nobody knows it, as nobody knows null. */
interface VfToken {
  uuid: Uint8Array | null;
  /** Open virtual functions. */
  users: number;
}

const known = new WeakMap<PciDev, VfioPciSriov>();

/** vfio_pci_core_sriov_configure for a device that vfio-pci has: the VFs that are there now, or -errno. */
export function sriovConfigure(dev: PciDev, count: number): number {
  return known.get(dev)?.configure(count) ?? 0;
}

export class VfioPciSriov {
  private readonly context: KernelContext;
  private readonly dev: PciDevice;
  private readonly power: LowPower;
  private readonly functions: VirtualFunctions | null;
  /** Of a physical function; else null. */
  private readonly token: VfToken | null;
  /** Of a virtual function that a vfio-pci of its physical one made (sriov_pf_core_dev); else null. */
  private readonly pf: VfioPciSriov | null;
  /** vfio_pci_core_sriov_configure made VFs (it is on the list of vfio_pci_sriov_pfs). */
  private configured = false;

  constructor(context: KernelContext, dev: PciDevice, power: LowPower, functions: VirtualFunctions | null) {
    this.context = context;
    this.dev = dev;
    this.power = power;
    this.functions = functions;
    this.token = dev.sriov === null ? null : { uuid: null, users: 0 };
    const pf = dev.physfn === null ? undefined : known.get(dev.physfn);
    this.pf = pf?.configured === true ? pf : null;
    known.set(dev, this);
  }

  /** Is the feature VF_TOKEN there? */
  get takesToken(): boolean {
    return this.token !== null;
  }

  setToken(uuid: Uint8Array): void {
    if (this.token !== null) this.token.uuid = uuid;
  }

  /** The device was opened, or closed for the last time. */
  opened(): void {
    if (this.pf?.token != null) this.pf.token.users += 1;
  }

  closed(): void {
    if (this.pf?.token != null) this.pf.token.users -= 1;
  }

  /**
   * vfio_pci_validate_vf_token: may a user with this token (16 bytes in the order of the text, or null without one) have the device? 0; -EACCES: a token is
   * needed, or it is another one; -EINVAL: a token where none applies.
   */
  validate(uuid: Uint8Array | null): number {
    const { dev, token, pf } = this;
    const { refusals } = this.context;
    if (dev.physfn !== null) {
      if (pf !== null) return this.compare(pf.token, uuid);
      if (uuid === null) return 0;
      const why = `${dev.name} takes no VF token: its physical function ${dev.physfn.name} is not bound to vfio-pci`;
      return refusals.refuse('EINVAL', why, 'vf_token');
    }
    if (token === null) {
      if (uuid === null) return 0;
      const why = `${dev.name} is no virtual function and has none, so it takes no VF token`;
      return refusals.refuse('EINVAL', why, 'vf_token');
    }
    if (token.users > 0) return this.compare(token, uuid);
    if (uuid !== null) token.uuid = uuid;
    return 0;
  }

  /** The number of VFs that are there now: `count`, or 0 after they went; or -errno. */
  configure(count: number): number {
    const { context, dev, functions, power } = this;
    const { refusals } = context;
    if (!context.modules.vfio_pci.enable_sriov)
      return refusals.refuse(
        'ENOENT',
        'vfio-pci leaves SR-IOV alone',
        undefined,
        'set vfio_pci.enable_sriov to let its physical functions make virtual ones',
      );
    if (functions === null) return refusals.refuse('ENOENT', `nobody takes the virtual functions of ${dev.name}`);
    if (count === 0) return this.release(functions);
    if (this.configured) return refusals.refuse('EINVAL', `${dev.name} has VFs, or is making them`);
    this.configured = true;
    // A physical function never sleeps while it has virtual ones.
    power.runtime.get();
    power.wakeForSriov();
    const error = functions.enable(dev, count);
    if (error === 0) return count;
    power.runtime.put();
    this.configured = false;
    return error;
  }

  /** Before the driver lets go of the device: VFs of its making go first. 0 or -errno. */
  release(functions = this.functions): number {
    if (functions === null || !this.configured) return 0;
    const error = functions.disable(this.dev);
    if (error < 0) return error;
    this.power.runtime.put();
    this.configured = false;
    return 0;
  }

  private compare(token: VfToken | null, uuid: Uint8Array | null): number {
    const { refusals } = this.context;
    const { name } = this.dev;
    if (uuid === null)
      return refusals.refuse('EACCES', `${name} needs the VF token of its physical function`, 'vf_token');
    const right = token?.uuid ?? null;
    if (right?.every((byte, i) => byte === uuid[i]) === true) return 0;
    return refusals.refuse('EACCES', `the VF token given for ${name} is not the one in use`, 'vf_token');
  }
}
