/** A VM on a simulated kernel of RAM alone, with the guest attached: for tests of the emulation without a device. */
import { SimKernelClient } from '../../kernel/client.ts';
import { SimKernel } from '../../kernel/kernel.ts';
import { createKvm } from '../../kernel/kvm/index.ts';
import { testContext } from '../../kernel/test-context.ts';
import type { GuestMap } from '../guest-map.ts';
import { VirtualMachine } from '../vm.ts';

export function testVm(map: GuestMap, cpus = 1): { vm: VirtualMachine; client: SimKernelClient; ledger: Float64Array } {
  const context = testContext();
  const kernel = new SimKernel(context);
  const client = new SimKernelClient(kernel);
  const kvm = createKvm(context, { architecture: map.architecture });
  kernel.mount('/dev/kvm', { kind: 'device', mode: 0o660, uid: 0, open: () => kvm.openFile() });
  const vm = VirtualMachine.create(client, { map, cpus, guestPort: kvm.guestPort(client.process) });
  return { vm, client, ledger: context.tap.ledger };
}
