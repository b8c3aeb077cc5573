/** The engine's worker, watched, and with the faults that its address asks for. */

import './faults';
import './counting';
import '../../../web-demo/src/engine/worker';
