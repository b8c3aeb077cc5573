import { Demo } from './app/demo';
import { showTrouble } from './app/trouble';

declare global {
  /** For pages that embed this one, and for people at the console: README.md says more. */
  var backgroundBlur: Pick<Demo, 'track' | 'report' | 'loseDevice'> | undefined;
}

try {
  globalThis.backgroundBlur = await Demo.open();
} catch (error) {
  showTrouble({
    what: error instanceof Error ? error.message : String(error),
    next: 'Try again in a moment.',
    ways: [{ label: 'Try again', go: () => location.reload() }],
  });
}
