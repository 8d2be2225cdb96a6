/** The command line of `npm run lab`. */
import { parseArgs } from 'node:util';
import { PLATFORMS } from './platforms.mjs';

export const USAGE = `npm run lab -- PLATFORM [--kernel debian|lab] [--shell] [--timeout SECONDS] [--append WORDS] [--verbose] [-- SCRIPT [ARGUMENT...]]

  Boots real Linux in QEMU, with an IOMMU and the devices edu, nvme and igb given to vfio-pci, and runs a script
  with Node in it; the script imports belfry as it stands in dist/. Prints what the script prints.

  PLATFORM   ${Object.keys(PLATFORMS).join(', ')}
  --kernel   debian (default): Debian's cloud kernel, legacy VFIO. lab: with iommufd and the vfio cdev
  --shell    a shell in the guest instead, or before the script
  --append   more words for the kernel command line, as vfio_iommu_type1.allow_unsafe_interrupts=1
  --verbose  the whole console, and the command line of QEMU

  Exit status: the script's; 2 usage; 77 skipped, because something that the lab needs is not here; 1 anything else.`;

/** Seconds: a day. What a timer of Node takes ends at 24. */
const LONGEST = 86_400;

export class UsageError extends Error {}

/** @throws UsageError */
export function parseLabOptions(argv) {
  const end = argv.indexOf('--');
  const own = end < 0 ? argv : argv.slice(0, end);
  const [script = null, ...args] = end < 0 ? [] : argv.slice(end + 1);
  const { values, positionals } = parse(own);
  const [name, ...others] = positionals;
  if (values.help) return { help: true };
  if (name === undefined) throw new UsageError('which platform?');
  if (others.length > 0) throw new UsageError(`${others.join(' ')}: a script stands behind --`);
  if (!Object.hasOwn(PLATFORMS, name))
    throw new UsageError(`no platform is called ${name}; there are ${Object.keys(PLATFORMS).join(', ')}`);
  const platform = PLATFORMS[name];
  const kernel = values.kernel ?? (platform.nesting ? 'lab' : 'debian');
  if (!['debian', 'lab'].includes(kernel)) throw new UsageError(`--kernel ${kernel}: debian or lab`);
  if (platform.nesting && kernel !== 'lab') throw new UsageError(`${name} needs --kernel lab`);
  const timeout = Number(values.timeout);
  if (!(timeout > 0 && timeout <= LONGEST))
    throw new UsageError(`--timeout ${values.timeout}: expected seconds, at most ${LONGEST}`);
  if (script === null && !values.shell) throw new UsageError('a script behind --, or --shell');
  const append = values.append.split(' ').filter((word) => word !== '');
  return {
    name,
    platform,
    kernel,
    shell: values.shell,
    verbose: values.verbose,
    timeout,
    append,
    script,
    args,
  };
}

function parse(args) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        kernel: { type: 'string' },
        shell: { type: 'boolean', default: false },
        timeout: { type: 'string', default: '240' },
        append: { type: 'string', default: '' },
        verbose: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
  } catch (error) {
    throw new UsageError(error.message);
  }
}
