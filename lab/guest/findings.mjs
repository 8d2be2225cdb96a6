/** What a script of the lab found, one line each, and whether it was as expected. */
import { VfioError } from 'belfry/vfio';

export const hex = (value) => `0x${value.toString(16)}`;

export class Findings {
  #wrong = 0;

  constructor(title) {
    this.title = title;
  }

  expect(what, found, wanted) {
    const same = found === wanted;
    if (!same) this.#wrong += 1;
    console.log(`${same ? 'ok   ' : 'WRONG'} ${what}: ${found}${same ? '' : `, expected ${wanted}`}`);
  }

  /** The errno of what is refused, told with its reason; `granted` where nothing is. */
  refusal(attempt) {
    try {
      attempt();
      return 'granted';
    } catch (error) {
      if (!(error instanceof VfioError)) throw error;
      console.log(`  ${error.message}`);
      return error.code;
    }
  }

  /** Ends the program: status 1 when something was not as expected. */
  end() {
    console.log(this.#wrong === 0 ? `${this.title}: all as expected` : `${this.title}: ${this.#wrong} not as expected`);
    process.exit(this.#wrong === 0 ? 0 : 1);
  }
}
