/** All cases. */
import './container.mjs';
import './group.mjs';
import './type1-map.mjs';
import './type1-info.mjs';
import './device.mjs';
import './regions.mjs';
import './config.mjs';
import './interrupts.mjs';
import './edu-interrupts.mjs';
import './notices.mjs';
import './iommufd-objects.mjs';
import './ioas.mjs';
import './compat.mjs';
import './cdev.mjs';
import './hwpt.mjs';
import './doorbell.mjs';
import './lifetime.mjs';
