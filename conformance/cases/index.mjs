/** All cases. */
import './container.mjs';
import './group.mjs';
import './type1-map.mjs';
