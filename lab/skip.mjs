/** Something that the lab needs is not here: the run is skipped, which is neither passed nor failed. */
export class Skip extends Error {}

/** The exit status of a skipped run, as test harnesses use it. */
export const SKIPPED = 77;
