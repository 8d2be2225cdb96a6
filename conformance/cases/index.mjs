/** All cases. */
import './container.mjs';
