import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/iommufd.ts';
import { userLockedPages } from './account.ts';
import { attachedHost, iommufdHost } from './testing.ts';

const PAGE = 4096;

describe('what is pinned of a process', () => {
  const capabilities = ['CAP_SYS_RESOURCE'];

  it('counts when the user is charged, and when nobody is (iopt_pages_update_pinned)', () => {
    for (const more of [[], ['CAP_IPC_LOCK']]) {
      const { iommufd, id, va, client, context } = attachedHost({
        process: { capabilities: ['CAP_DAC_OVERRIDE', ...capabilities, ...more], limits: { memlock: 8 * PAGE } },
      });
      expect(iommufd.mapAt(id, 0x1000, va, 3 * PAGE)).toBe(0);
      expect(client.process).toMatchObject({ pinnedPages: 3, lockedPages: 0 });
      expect(userLockedPages(context, 0)).toBe(more.length === 0 ? 3 : 0);
      iommufd.unmap(id, 0x1000, 3 * PAGE);
      expect([client.process.pinnedPages, userLockedPages(context, 0)]).toEqual([0, 0]);
    }
  });

  it('is locked as well when the process is charged; a refused mapping counts nothing', () => {
    const process = { capabilities: ['CAP_DAC_OVERRIDE', ...capabilities], limits: { memlock: 4 * PAGE } };
    const { iommufd, memory, devices, client } = iommufdHost({ process });
    iommufd.call(uapi.IOMMU_OPTION, uapi.iommu_option, { val64: 1 });
    const id = iommufd.ioas();
    iommufd.bind(devices[0]!);
    iommufd.attach(devices[0]!, id);
    expect(iommufd.mapAt(id, 0x1000, memory.address, 4 * PAGE)).toBe(0);
    expect(client.process).toMatchObject({ pinnedPages: 4, lockedPages: 4 });
    expect(iommufd.mapAt(id, 0x2_0000, memory.address, PAGE)).toBe('ENOMEM');
    expect(client.process).toMatchObject({ pinnedPages: 4, lockedPages: 4 });
    iommufd.detach(devices[0]!);
    expect(client.process).toMatchObject({ pinnedPages: 0, lockedPages: 0 });
  });
});
