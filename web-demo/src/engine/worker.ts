/** The worker: an engine behind `postMessage`, see `protocol.ts`. */

import { Engine } from './engine';
import type { Command } from './protocol';

const engine = new Engine((notice, transfer = []) => postMessage(notice, { transfer }));

addEventListener('message', ({ data }: MessageEvent<Command>) => engine.handle(data));
