/** All cases. */
import './container.mjs';
import './group.mjs';
import './type1-map.mjs';
import './type1-info.mjs';
import './device.mjs';
