/** What the guest's own software cannot do with the machine that it was given: an answer for people, not a fault of the program. */
export class GuestError extends RangeError {
  constructor(why: string) {
    super(why);
    this.name = 'GuestError';
  }
}
