/** The VfioError that `action` throws. */
import { VfioError } from '../error.ts';

export function caught(action: () => unknown): VfioError {
  try {
    action();
  } catch (error) {
    if (error instanceof VfioError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}
