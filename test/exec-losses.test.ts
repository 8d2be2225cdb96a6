/** Who waited for an interrupt that was lost is told where it was lost, why, and what would help. */
import { spawn } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { jsonLines, main, programOf, run, titled } from './support/exec-run.ts';

const { program, reason } = programOf('device-program');
const lose = (how: string, ...options: string[]) => run([...options, '--', program, '0000:01:00.0', how]);

describe('an interrupt that a program waited for in vain', () => {
  it.skipIf(reason !== null)(titled('without a doorbell: the IOMMU, the address, its record', reason), () => {
    const { out, err, status } = lose('fine', '--doorbell', 'none');
    expect([out, status]).toEqual(['gave up waiting\n', 0]);
    // GITS_TRANSLATER of the preset's ITS (IHI 0069 12.19): 0x5081_0040.
    expect(err).toMatch(
      /^belfry: lost: 2 interrupts of 0000:01:00\.0 MSI-X vector 1 to 0x5081_0040: IOMMU_FAULT at 52000000\.smmuv3: .*F_TRANSLATION.*; run without --doorbell none/,
    );
    expect(lose('fine').out).toBe('interrupts 2\n');
  });

  it.skipIf(reason !== null)(titled('with bus mastering off, killed, and as JSON', reason), () => {
    const off = lose('master', '--json');
    expect(jsonLines(off)).toEqual([
      {
        kind: 'lost',
        count: 2,
        loss: 'BUS_MASTER_OFF',
        device: '0000:01:00.0',
        how: 'msix',
        vector: 1,
        address: '0x0800_0040',
        where: '0000:01:00.0',
        why: expect.stringContaining('bus mastering is off'),
        hint: expect.stringContaining('COMMAND'),
      },
      expect.objectContaining({ kind: 'summary', interrupts: { sent: 2, delivered: 0, lost: { BUS_MASTER_OFF: 2 } } }),
    ]);
    const killed = lose('killed', '--doorbell', 'none');
    expect(killed.signal).toBe('SIGKILL');
    expect(killed.err).toMatch(/^belfry: lost: 2 interrupts .*IOMMU_FAULT/);
  });

  it.skipIf(reason !== null)(titled('of vectors that are not enabled, or masked until the end', reason), () => {
    expect(lose('disabled').err).toMatch(
      /^belfry: lost: 2 interrupts of 0000:01:00\.0 vector 1: NOT_ENABLED: .*; VFIO_DEVICE_SET_IRQS with ACTION_TRIGGER/,
    );
    // Two of three vectors are enabled: vfio_msi_enable leaves the third one's entry masked.
    expect(lose('beyond').err).toMatch(
      /^belfry: lost: 1 interrupt of 0000:01:00\.0 MSI-X vector 2: TORN_DOWN: pending behind a mask/,
    );
    expect(lose('master', '--quiet').err).toBe('');
  });

  it.skipIf(reason !== null)(titled('when it is interrupted at the terminal', reason), async () => {
    const args = [main, 'exec', '--doorbell', 'none', '--', program, '0000:01:00.0', 'interrupted'];
    // A group of its own, as a shell makes for what it runs: all of it gets the terminal's signal.
    const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    let err = '';
    child.stderr.on('data', (text) => (err += text));
    await new Promise((resolve) => child.stdout.once('data', resolve));
    process.kill(-child.pid!, 'SIGINT');
    const signal = await new Promise((resolve) => child.once('close', (_status, by) => resolve(by)));
    expect(signal).toBe('SIGINT');
    expect(err).toMatch(/^belfry: lost: 2 interrupts of 0000:01:00\.0 MSI-X vector 1 to 0x5081_0040/);
  });
});
