/** Unmodified programs on a simulated host. */
export { ExecUnavailable, ProgramNotStarted, type RunOptions, type RunResult, runProgram } from './run-program.ts';
export type { Counts } from './session.ts';
