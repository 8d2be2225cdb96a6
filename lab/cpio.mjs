/** Writes a cpio archive (newc), as the kernel unpacks it into its first file system. Everything in it belongs to root. */
import { closeSync, lstatSync, openSync, readdirSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const DIRECTORY = 0o040000;
const FILE = 0o100000;
const LINK = 0o120000;
const CHARACTER = 0o020000;
const BLOCK = 512;

export class CpioWriter {
  #fd;
  #inode = 1;
  #position = 0;
  #made = new Set();

  constructor(path) {
    this.#fd = openSync(path, 'w');
  }

  /** A directory and those above it. */
  directory(path) {
    const names = path.split('/').filter((name) => name !== '');
    names.forEach((_, i) => {
      const name = names.slice(0, i + 1).join('/');
      if (this.#made.has(name)) return;
      this.#made.add(name);
      this.#record(name, DIRECTORY | 0o755);
    });
  }

  file(path, bytes, mode = 0o644) {
    this.directory(path.split('/').slice(0, -1).join('/'));
    this.#record(path, FILE | mode, Buffer.from(bytes));
  }

  /** A file of this machine under another name. */
  copy(path, from) {
    this.file(path, readFileSync(from), lstatSync(from).mode & 0o777);
  }

  link(path, target) {
    this.directory(path.split('/').slice(0, -1).join('/'));
    this.#record(path, LINK | 0o777, Buffer.from(target));
  }

  device(path, major, minor, mode = 0o600) {
    this.directory(path.split('/').slice(0, -1).join('/'));
    this.#record(path, CHARACTER | mode, Buffer.alloc(0), major, minor);
  }

  /** Everything below a directory of this machine; `wants(relative)` may leave things out. */
  tree(path, from, wants = () => true, below = '') {
    for (const entry of readdirSync(join(from, below), { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const relative = below === '' ? entry.name : `${below}/${entry.name}`;
      if (!wants(relative)) continue;
      const source = join(from, relative);
      if (entry.isSymbolicLink()) this.link(`${path}/${relative}`, readlinkSync(source));
      else if (entry.isDirectory()) this.tree(path, from, wants, relative);
      else if (entry.isFile()) this.copy(`${path}/${relative}`, source);
    }
  }

  end() {
    this.#inode = 0;
    this.#record('TRAILER!!!', 0);
    this.#pad(BLOCK);
    closeSync(this.#fd);
  }

  #record(name, mode, bytes = Buffer.alloc(0), major = 0, minor = 0) {
    const path = Buffer.from(`${name.replace(/^\//, '')}\0`);
    const fields = [this.#inode, mode, 0, 0, 1, 0, bytes.length, 0, 0, major, minor, path.length, 0];
    this.#inode += 1;
    this.#write(Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`));
    this.#write(path);
    this.#pad(4);
    this.#write(bytes);
    this.#pad(4);
  }

  #write(bytes) {
    for (let done = 0; done < bytes.length; ) done += writeSync(this.#fd, bytes, done);
    this.#position += bytes.length;
  }

  #pad(multiple) {
    const rest = this.#position % multiple;
    if (rest !== 0) this.#write(Buffer.alloc(multiple - rest));
  }
}
