/** Unmodified programs on a simulated host. */
export { endBySignal, signalName } from './end-by-signal.ts';
export { Losses, type LostInterrupts } from './losses.ts';
export { ExecUnavailable, ProgramNotStarted, type RunOptions, type RunResult, runProgram } from './run-program.ts';
export type { Counts, Held } from './session.ts';
export type { ServedCall } from './supervisor.ts';
export { type Watch, watched } from './watched-function.ts';
