/** What is looked for in a run, and whether it was there. */
export const check = (what, ok) => ({ what, ok: Boolean(ok) });

/** The same for what is known not to be there: told of, and no failure. */
export const limit = (what, ok) => ({ ...check(what, ok), known: true });

export const failed = (checks) => checks.filter(({ ok, known }) => !ok && known !== true);
