import { expect, it } from 'vitest';
import { lookup } from './lookup.ts';
import { MountTree } from './mount-tree.ts';
import { attribute, directory } from './node.ts';

it('shows what is mounted, and the directories that lead there', () => {
  const tree = new MountTree();
  const file = attribute(() => 'yes');
  tree.mount('/dev/vfio/10', file);
  tree.mount('/dev/vfio/9', file);
  tree.mount(
    '/sys/module',
    directory(() => ({ kvm: file })),
  );
  expect(tree.root.names()).toEqual(['dev', 'sys']);
  const vfio = lookup(tree.root, '/dev/vfio')?.node;
  expect(vfio?.kind === 'directory' && vfio.names()).toEqual(['9', '10']);
  expect(lookup(tree.root, '/sys/module/kvm')?.node).toBe(file);
});

it('forgets directories that lead nowhere any more, and no others', () => {
  const tree = new MountTree();
  const file = attribute(() => 'yes');
  tree.mount('/dev/vfio/devices/vfio0', file);
  tree.mount('/dev/kvm', file);
  tree.unmount('/dev/vfio/devices/vfio0');
  expect(lookup(tree.root, '/dev/vfio')).toBeNull();
  expect(lookup(tree.root, '/dev/kvm')?.node).toBe(file);
  tree.unmount('/dev/vfio/devices/vfio0');
  tree.unmount('/nothing/at/all');
  expect(tree.root.names()).toEqual(['dev']);
});

it('refuses to be mounted upon as a whole', () => {
  expect(() =>
    new MountTree().mount(
      '/',
      attribute(() => ''),
    ),
  ).toThrow(RangeError);
});
