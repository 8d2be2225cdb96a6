/**
 * The lab's own kernel: Debian's source, another configuration, no patch. iommufd, the vfio cdev and SMMUv3 nesting are built
 * in. It is taken ready-made from BELFRY_LAB_SEED when that directory has it, checked against the SHA256SUMS there; else built.
 */
import { copyFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory, sha256 } from './cache.mjs';
import { buildKernel } from './kernel-build.mjs';
import { Skip } from './skip.mjs';

const NAMES = { arm64: /^linux-(.+)-lab-arm64\.Image$/, amd64: /^linux-(.+)-lab-x86_64\.bzImage$/ };

/** `{ image, version, modules: [] }` */
export async function labKernel(architecture) {
  const kept = cacheDirectory('kernel');
  const found =
    newest(kept, architecture) ?? (await seed(kept, architecture)) ?? (await buildKernel(kept, architecture));
  if (found === null)
    throw new Skip('the lab’s own kernel is neither in the cache nor in BELFRY_LAB_SEED, and cannot be built');
  return { image: join(kept, found.file), version: `${found.version}-lab`, modules: [] };
}

function newest(directory, architecture) {
  const matches = readdirSync(directory).flatMap((file) => {
    const match = NAMES[architecture].exec(file);
    return match === null ? [] : [{ file, version: match[1] }];
  });
  return matches.sort((a, b) => a.version.localeCompare(b.version, 'en', { numeric: true })).at(-1) ?? null;
}

async function seed(kept, architecture) {
  const from = process.env.BELFRY_LAB_SEED;
  if (!from || !existsSync(from)) return null;
  const found = newest(from, architecture);
  if (found === null) return null;
  const sums = readFileSync(join(from, 'SHA256SUMS'), 'utf8');
  const wanted = sums
    .split('\n')
    .find((line) => line.endsWith(`  ${found.file}`))
    ?.split(' ')[0];
  const actual = await sha256(join(from, found.file));
  if (wanted !== actual)
    throw new Error(`${found.file} in BELFRY_LAB_SEED has sha256 ${actual}, SHA256SUMS says ${wanted}`);
  copyFileSync(join(from, found.file), join(kept, found.file));
  return found;
}
