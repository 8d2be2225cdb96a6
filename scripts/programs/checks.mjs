/** What is looked for in a run, and whether it was there. */
export const check = (what, ok) => ({ what, ok: Boolean(ok) });
