/**
 * A case: a sequence of calls and what is expected of each. It runs on every kernel that has what it needs; expectations come from the source of Linux 7.2
 * or from a specification, never from what a kernel answered.
 *
 * @typedef {{
 *   id: string,         suite and name: `container: SET_IOMMU twice is EINVAL`
 *   suite: string,
 *   name: string,
 *   source: string,     the branch of Linux that it examines: file and function
 *   needs: readonly string[],   features of a platform, see platforms.mjs
 *   run: (t: import('./subject.mjs').Subject) => void | Promise<void>,
 * }} Case
 */

const defined = [];

/**
 * Defines cases: `suite('container', { needs: ['type1'], source: 'drivers/vfio/container.c' }, (add) => add('name', 'function', (t, fixture) => …))`.
 * `fixture(t)` is made anew for each case; what it opens through `t` is closed when the case ends.
 */
export function suite(name, { needs = [], source = '', fixture = () => undefined }, define) {
  const add = (title, branch, run, more = {}) => {
    const id = `${name}: ${title}`;
    if (defined.some((each) => each.id === id)) throw new Error(`two cases are called ${id}`);
    const where = branch.includes('.c') || source === '' ? branch : `${source} ${branch}`;
    defined.push({
      id,
      suite: name,
      name: title,
      source: where,
      needs: [...needs, ...(more.needs ?? [])],
      run: async (t) => run(t, await fixture(t)),
    });
  };
  define(add);
}

/** All cases that modules imported so far have defined. @returns {readonly Case[]} */
export const allCases = () => defined;
