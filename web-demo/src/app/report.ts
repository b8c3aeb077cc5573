/** The report that one copies: JSON with everything the page knows of how it runs here. */

import type { Report } from '../engine/protocol';
import type { Engine } from './engine';

/** What the engine cannot know: the page around it. */
interface PageFacts {
  crossOriginIsolated: boolean;
  devicePixelRatio: number;
  hardwareConcurrency: number;
  /** Of the page's own files: its worker counts the rest. */
  transferredBytes: number;
  /** Frames that were never handed to the engine, because it was busy. */
  droppedFrames: number;
  source: string;
}

export async function collectReport(engine: Engine, source: string): Promise<Report & { page: PageFacts }> {
  engine.send({ type: 'report' });
  const { report } = await engine.next('report');
  const entries = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
  const transferredBytes = entries.reduce((sum, entry) => sum + (entry as PerformanceResourceTiming).transferSize, 0);
  return {
    ...report,
    page: {
      crossOriginIsolated,
      devicePixelRatio,
      hardwareConcurrency: navigator.hardwareConcurrency,
      transferredBytes,
      droppedFrames: engine.droppedFrames,
      source,
    },
  };
}

/** To the clipboard, or to a file where the browser forbids that. Returns where it went. */
export async function copyOrSave(text: string, name: string): Promise<'copied' | 'saved'> {
  try {
    await navigator.clipboard.writeText(text);
    return 'copied';
  } catch {
    save(new Blob([text], { type: 'application/json' }), name);
    return 'saved';
  }
}

/** Offers a file to keep. */
export function save(content: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  // The download has its own hold on the content once it has begun.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
