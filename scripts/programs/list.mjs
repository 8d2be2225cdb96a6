/** All programs, in the order of the page. */
import { programs as qemu } from './qemu.mjs';

export const programs = [...qemu];
