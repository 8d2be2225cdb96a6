/** The string of VFIO_GROUP_GET_DEVICE_FD (vfio_pci_core.c vfio_pci_core_match): a name, and for VFs a token. */
import type { RefusalLog } from '../refusal.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/i;
const VF_TOKEN = 'vf_token=';

/** 1: the name; 0: another device's; -EINVAL: the name with options that are malformed, or a token where none applies. */
export function matchName(refusals: RefusalLog, name: string, text: string): number {
  if (!text.startsWith(name)) return 0;
  let rest = text.slice(name.length);
  if (rest === '') return 1;
  if (!rest.startsWith(' ')) return 0;
  let token = false;
  for (rest = rest.trimStart(); rest !== ''; rest = rest.trimStart()) {
    const uuid = rest.startsWith(VF_TOKEN) && !token ? UUID.exec(rest.slice(VF_TOKEN.length)) : null;
    if (uuid === null)
      return refusals.refuse('EINVAL', `"${rest}" behind the device's name is no single vf_token=<uuid>`, 'name');
    token = true;
    rest = rest.slice(VF_TOKEN.length + uuid[0].length);
  }
  if (!token) return 1;
  return refusals.refuse('EINVAL', `${name} is no virtual function and has none, so it takes no VF token`, 'name');
}
