/** /proc/PID/maps: what a process has mapped. */
import { readFileSync } from 'node:fs';

export interface Area {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly shared: boolean;
  /** Where in the file `start` lies, in bytes. */
  readonly offset: number;
  /** `8:1 4711`: the file behind it, equal for all mappings of one. Zero for private anonymous memory. */
  readonly file: string;
  readonly path: string;
}

const LINE = /^([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) (\S+ \d+)\s*(.*)$/;

/** In the order of the addresses; null when the process is gone or may not be looked at. */
export function readMaps(pid: number): readonly Area[] | null {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/maps`, 'latin1');
  } catch {
    return null;
  }
  const areas: Area[] = [];
  for (const line of text.split('\n')) {
    const fields = LINE.exec(line);
    if (fields === null) continue;
    const [, start = '', end = '', flags = '', offset = '', file = '', path = ''] = fields;
    areas.push({
      start: Number.parseInt(start, 16),
      end: Number.parseInt(end, 16),
      readable: flags[0] === 'r',
      writable: flags[1] === 'w',
      shared: flags[3] === 's',
      offset: Number.parseInt(offset, 16),
      file,
      path,
    });
  }
  return areas;
}
