/** Debian's cloud kernel: legacy VFIO (container and group) as modules; no iommufd. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { run, which } from './command.mjs';
import { Debian } from './debian.mjs';
import { Skip } from './skip.mjs';

/** In the order in which they are loaded; irqbypass is built in on arm64. */
const MODULES = ['irqbypass', 'vfio', 'vfio_iommu_type1', 'vfio-pci-core', 'vfio-pci'];

/** `{ image, version, modules: [{ name, bytes }] }` */
export async function debianKernel(architecture) {
  if (which('xz') === null) throw new Skip('the modules of Debian’s kernel are compressed, and xz is not here');
  const debian = Debian.open();
  debian.update();
  const packages = kernelPackages(debian, architecture);
  const { path } = await debian.unpack(`linux-${architecture}`, packages);
  const parent = [join(path, 'usr/lib/modules'), join(path, 'lib/modules')].find(existsSync);
  const version = readdirSync(parent)[0];
  const image = [join(parent, version, 'vmlinuz'), join(path, 'boot', `vmlinuz-${version}`)].find(existsSync);
  const modules = MODULES.flatMap((name) => moduleOf(join(parent, version), name));
  return { image, version, modules };
}

/** linux-image-cloud-ARCH depends on the present version's image, and that on binary and modules (one package before 7). */
function kernelPackages(debian, architecture) {
  const meta = `linux-image-cloud-${architecture}:${architecture}`;
  if (debian.version(meta) === null) throw new Skip(`Debian has no ${meta}`);
  const image = debian.depends(meta).find((name) => /^linux-image-\d/.test(name));
  if (image === undefined) throw new Skip(`${meta} depends on no linux-image`);
  const qualified = (name) => (name.includes(':') ? name : `${name}:${architecture}`);
  const parts = debian.depends(qualified(image)).filter((name) => /^linux-(binary|modules)-\d/.test(name));
  return (parts.length > 0 ? parts : [image]).map(qualified);
}

function moduleOf(root, name) {
  const file = readdirSync(root, { recursive: true }).find(
    (path) => path.endsWith(`/${name}.ko.xz`) || path.endsWith(`/${name}.ko`),
  );
  if (file === undefined) return [];
  const path = join(root, file);
  const bytes = path.endsWith('.xz')
    ? run('xz', ['-dc', path], { encoding: 'buffer' })
    : run('cat', [path], { encoding: 'buffer' });
  return [{ name, bytes }];
}
