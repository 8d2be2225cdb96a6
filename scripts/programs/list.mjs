/** All programs, in the order of the page. */
import { programs as dpdk } from './dpdk.mjs';
import { programs as edu } from './edu.mjs';
import { programs as guestEdu } from './guest-edu.mjs';
import { programs as pciutils } from './pciutils.mjs';
import { programs as qemu } from './qemu.mjs';

export const programs = [...qemu, ...guestEdu, ...dpdk, ...pciutils, ...edu];
