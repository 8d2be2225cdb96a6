/** Things that are closed once, together with what was opened on them, newest first. */
import { closed } from './error.ts';

export abstract class Resource implements Disposable {
  #closed = false;
  #parent: Resource | null = null;
  readonly #children = new Set<Resource>();
  #next: Resource | null = null;

  /** For errors: `device 0000:01:00.0`. */
  abstract readonly label: string;
  /** Gives back what this resource itself holds. Called once, after its children are closed. */
  protected abstract release(): void;

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Closes this and everything opened on it, in reverse order of construction. A second call does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.closeChildren();
    this.release();
    this.#parent?.abandon(this);
    this.#next?.close();
  }

  /** Closes `resource` too, once this is closed. */
  thenClose(resource: Resource): void {
    this.#next = resource;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** @throws VfioError EBADF after close */
  assertOpen(request: string): void {
    if (this.#closed) throw closed(this.label, request);
  }

  /** Makes `child` close with this. */
  protected adopt<T extends Resource>(child: T): T {
    const resource: Resource = child;
    resource.#parent?.abandon(resource);
    resource.#parent = this;
    this.#children.add(child);
    return child;
  }

  /** `child` no longer closes with this. */
  protected abandon(child: Resource): void {
    if (this.#children.delete(child)) child.#parent = null;
  }

  protected closeChildren(): void {
    for (const child of [...this.#children].reverse()) child.close();
  }
}
