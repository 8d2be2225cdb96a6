// The runs that the project promises, at full length: a million interrupts each, by the command itself. `--quick` sends 20,000 each.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const main = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist', 'cli', 'main.js');
const count = process.argv.includes('--quick') ? 20_000 : 1_000_000;

/** name, arguments, what the summary and the exit status must be. */
const all = { status: 0, delivered: count, lost: 0, coalesced: 0, pending: 0, faults: 0 };
const unsafe = '--allow-unsafe-interrupts';
const table = [
  ['arm-its MSI 1', ['--device', 'bell,msi=1', '--vectors', '1'], { ...all, rule: 'guest' }],
  ['arm-its MSI 32', ['--device', 'bell,msi=32', '--vectors', '32'], { ...all, rule: 'guest' }],
  ['arm-its MSI-X 1', ['--vectors', '1'], { ...all, rule: 'guest' }],
  ['arm-its MSI-X 3', ['--vectors', '3'], { ...all, rule: 'guest' }],
  ['arm-its MSI-X 2048', ['--vectors', '2048'], { ...all, rule: 'guest' }],
  ['arm-its window', ['--vectors', '3', '--doorbell', 'window'], { ...all, rule: 'window' }],
  ['arm-its address', ['--vectors', '3', '--doorbell', '0x9000_0000'], { ...all, rule: 'user' }],
  ['arm-v2m safe', ['--host', 'arm-v2m'], { status: 1 }],
  ['arm-v2m MSI 1', ['--host', 'arm-v2m', unsafe, '--device', 'bell,msi=1', '--vectors', '1'], { ...all }],
  ['arm-v2m MSI-X 3', ['--host', 'arm-v2m', unsafe, '--vectors', '3'], { ...all }],
  ['arm-v2m MSI-X 512', ['--host', 'arm-v2m', unsafe, '--vectors', '512'], { ...all }],
  ['arm-v2m MSI-X 2048', ['--host', 'arm-v2m', unsafe, '--vectors', '2048'], { ...all, granted: 956 }],
  ['x86 MSI 1', ['--host', 'x86', '--device', 'bell,msi=1', '--vectors', '1'], { ...all, rule: 'bypass' }],
  ['x86 MSI-X 1', ['--host', 'x86', '--vectors', '1'], { ...all, rule: 'bypass' }],
  ['x86 MSI-X 3', ['--host', 'x86', '--vectors', '3'], { ...all, rule: 'bypass' }],
  ['x86 MSI-X 512', ['--host', 'x86', '--vectors', '512'], { ...all, rule: 'bypass' }],
  ['arm-its none', ['--vectors', '3', '--doorbell', 'none'], { status: 1, delivered: 0, lost: count }],
];
// The same guest on either of the kernel's two interfaces.
const runs = ['type1', 'iommufd'].flatMap((iommu) =>
  table.map(([name, args, expected]) => [`${iommu} ${name}`, ['--iommu', iommu, ...args], expected]),
);
// A stage 1 of the VMM's own, with the doorbell where the guest has it and at an address above 4 GiB.
for (const doorbell of ['auto', '0x712345000']) {
  const args = ['--iommu', 'nested', '--vectors', '3', '--doorbell', doorbell];
  runs.push([`nested arm-its MSI-X 3 ${doorbell}`, args, { ...all }]);
}

let passed = 0;
for (const [name, args, expected] of runs) {
  const started = process.hrtime.bigint();
  const result = spawnSync(process.execPath, [main, 'ring', '--json', '--count', String(count), ...args], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  const last = result.stdout.trimEnd().split('\n').at(-1) ?? '';
  const summary = last.startsWith('{') ? JSON.parse(last) : {};
  const actual = { ...summary, status: result.status };
  const wrong = Object.entries(expected).filter(([key, value]) => actual[key] !== value);
  if (wrong.length === 0) passed += 1;
  const detail = wrong
    .map(([key, value]) => `${key} is ${JSON.stringify(actual[key])}, not ${JSON.stringify(value)}`)
    .join('; ');
  const what =
    summary.delivered === undefined ? `status ${result.status}` : `${summary.delivered} of ${summary.sent} delivered`;
  console.log(
    `${wrong.length === 0 ? 'ok    ' : 'FAILED'} ${name.padEnd(28)} ${what.padEnd(36)} ${seconds.toFixed(1).padStart(5)} s ${detail}`,
  );
  if (wrong.length > 0 && result.stderr !== '')
    console.log(`       ${result.stderr.trim().split('\n').slice(0, 4).join('\n       ')}`);
}
console.log(`smoke: ${passed} passed, ${runs.length - passed} failed`);
process.exitCode = passed === runs.length ? 0 : 1;
