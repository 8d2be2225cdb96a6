/** /proc/PID/maps: what a process has mapped. */
import { closeSync, openSync, readSync } from 'node:fs';

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

/** The kernel gives a page's worth of lines at a time. */
const CHUNK = Buffer.alloc(2 ** 16);

/**
 * In the order of the addresses; null when the process is gone or may not be looked at. The areas behind `until` may be left out: a program that
 * pins low addresses page by page has hundreds of them.
 */
export function readMaps(pid: number, until = Number.POSITIVE_INFINITY): readonly Area[] | null {
  let fd: number;
  try {
    fd = openSync(`/proc/${pid}/maps`, 'r');
  } catch {
    return null;
  }
  const areas: Area[] = [];
  let rest = '';
  try {
    while ((areas.at(-1)?.start ?? 0) < until) {
      const length = readSync(fd, CHUNK, 0, CHUNK.length, null);
      if (length === 0) break;
      const lines = `${rest}${CHUNK.toString('latin1', 0, length)}`.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const area = areaOf(line);
        if (area !== null) areas.push(area);
      }
    }
    return areas;
  } catch {
    return null;
  } finally {
    closeSync(fd);
  }
}

function areaOf(line: string): Area | null {
  const fields = LINE.exec(line);
  if (fields === null) return null;
  const [, start = '', end = '', flags = '', offset = '', file = '', path = ''] = fields;
  return {
    start: Number.parseInt(start, 16),
    end: Number.parseInt(end, 16),
    readable: flags[0] === 'r',
    writable: flags[1] === 'w',
    shared: flags[3] === 's',
    offset: Number.parseInt(offset, 16),
    file,
    path,
  };
}
