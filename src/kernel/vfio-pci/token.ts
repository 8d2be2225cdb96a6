/** The string of VFIO_GROUP_GET_DEVICE_FD (vfio_pci_core.c vfio_pci_core_match): a name, and for VFs a token. */
import type { RefusalLog } from '../refusal.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/i;
const VF_TOKEN = 'vf_token=';

/** 0: another device's name. -EINVAL: the name with options that are malformed. Else the token, or null without one. */
export function parseName(
  refusals: RefusalLog,
  name: string,
  text: string,
): { readonly token: Uint8Array | null } | number {
  if (!text.startsWith(name)) return 0;
  let rest = text.slice(name.length);
  if (rest === '') return { token: null };
  if (!rest.startsWith(' ')) return 0;
  let token: Uint8Array | null = null;
  for (rest = skipBlanks(rest); rest !== ''; rest = skipBlanks(rest)) {
    const uuid = rest.startsWith(VF_TOKEN) && token === null ? UUID.exec(rest.slice(VF_TOKEN.length)) : null;
    if (uuid === null)
      return refusals.refuse('EINVAL', `"${rest}" behind the device's name is no single vf_token=<uuid>`, 'name');
    token = uuidBytes(uuid[0]);
    rest = rest.slice(VF_TOKEN.length + uuid[0].length);
  }
  return { token };
}

const skipBlanks = (text: string): string => text.replace(/^ +/, '');

/** uuid_parse: the 16 bytes in the order of the text. */
const uuidBytes = (text: string): Uint8Array => {
  const digits = text.replaceAll('-', '');
  return Uint8Array.from({ length: 16 }, (_, i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16));
};
