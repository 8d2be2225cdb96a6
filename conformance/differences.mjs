/**
 * Where the simulated kernel answers something else than is expected of Linux, case by case: the reason, and the line of Linux that makes the difference.
 * A difference that is not listed here is a failure, and so is a listed one that is gone. At most two in a hundred cases.
 *
 * `{ id, kernels: ['sim' or a platform's name], why, source }`
 */
export const DIFFERENCES = [];
