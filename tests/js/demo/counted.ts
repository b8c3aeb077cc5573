/** The engine's worker, watched. */

import './counting';
import '../../../web-demo/src/engine/worker';
