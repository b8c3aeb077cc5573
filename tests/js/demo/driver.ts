/** A page that has nothing but the engine: tests open it, push frames, wait for notices. */

import './counting';
import { counted } from './counting';
import { DEFAULT_LOOK, type Command, type Look, type Notice, type Phase, type Report, type Wishes } from '../../../web-demo/src/engine/protocol';

export { counted, DEFAULT_LOOK };

/** Long enough for a software adapter that compiles the shaders of a real network. */
const PATIENCE_MS = 120_000;

export class Driver {
  readonly notices: Notice[] = [];
  readonly worker: Worker;
  canvas = document.createElement('canvas');

  /** `faults`: those of `faults.ts` that the worker is to have. */
  constructor(look: Partial<Look> = {}, faults: readonly string[] = []) {
    this.worker = new Worker(`/counted.js?${faults.join('&')}`, { type: 'module' });
    this.worker.addEventListener('message', ({ data }: MessageEvent<Notice>) => this.notices.push(data));
    document.body.replaceChildren(this.canvas);
    const canvas = this.canvas.transferControlToOffscreen();
    this.post({ type: 'start', canvas, look: { ...DEFAULT_LOOK, ...look } }, [canvas]);
  }

  post(command: Command, transfer: Transferable[] = []): void {
    this.worker.postMessage(command, transfer);
  }

  /** The next notice of a type; one of trouble that the engine does not recover from, where it is not waited for, is thrown. */
  next<T extends Notice['type']>(type: T): Promise<Extract<Notice, { type: T }>> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(reject, PATIENCE_MS, new Error(`no '${type}' came. Last: ${JSON.stringify(this.notices.slice(-3))}`));
      const listen = ({ data }: MessageEvent<Notice>) => {
        if (data.type !== type && (data.type !== 'trouble' || data.trouble.recovers)) return;
        clearTimeout(timer);
        this.worker.removeEventListener('message', listen);
        if (data.type === type) resolve(data as Extract<Notice, { type: T }>);
        else if (data.type === 'trouble') reject(new Error(`${data.trouble.code}: ${data.trouble.sentence}`));
      };
      this.worker.addEventListener('message', listen);
    });
  }

  async load(url: string, wishes: Wishes = {}): Promise<Extract<Notice, { type: 'model' }>> {
    const loaded = this.next('model');
    this.post({ type: 'model', model: { from: 'url', url }, wishes });
    return loaded;
  }

  async still(png: string): Promise<void> {
    const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob(), { colorSpaceConversion: 'none' });
    this.post({ type: 'source', source: { from: 'still', bitmap } }, [bitmap]);
  }

  /** `count` frames of a scene in which something moves, each shown before the next one is sent. */
  async frames(count: number, width: number, height: number): Promise<void> {
    const context = new OffscreenCanvas(width, height).getContext('2d');
    if (context === null) throw new Error('no 2D canvas');
    const { stats } = await this.report();
    const first = stats?.shown ?? 0;
    for (let i = 0; i < count; i++) {
      context.fillStyle = '#357';
      context.fillRect(0, 0, width, height);
      context.fillStyle = '#fc9';
      context.fillRect((i * 3) % width, height / 4, width / 3, height / 2);
      const frame = new VideoFrame(context.canvas, { timestamp: i * 33_333 });
      this.post({ type: 'frame', frame, timestampUs: frame.timestamp }, [frame]);
      while (((await this.report()).stats?.shown ?? 0) <= first + i) await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  async report(): Promise<Report> {
    const report = this.next('report');
    this.post({ type: 'report' });
    return (await report).report;
  }

  counts(): Promise<ReturnType<typeof counted>> {
    return new Promise((resolve) => {
      const listen = ({ data }: MessageEvent<{ type: string; counts: ReturnType<typeof counted> }>) => {
        if (data.type !== 'counts') return;
        this.worker.removeEventListener('message', listen);
        resolve(data.counts);
      };
      this.worker.addEventListener('message', listen);
      this.worker.postMessage('counts');
    });
  }

  /**
   * What is on the canvas, as base64 of its RGBA bytes. The canvas shows what the worker drew a moment later; until the
   * first frame has come it is one pixel wide.
   */
  async pixels(): Promise<string> {
    do await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    while (this.canvas.width === 1);
    const { width, height } = this.canvas;
    const context = new OffscreenCanvas(width, height).getContext('2d');
    if (context === null) throw new Error('no 2D canvas');
    context.drawImage(this.canvas, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    let all = '';
    for (let i = 0; i < data.length; i += 4096) all += String.fromCharCode(...data.subarray(i, i + 4096));
    return btoa(all);
  }

  /** The next notice of trouble, whatever else comes. */
  async trouble(): Promise<Extract<Notice, { type: 'trouble' }>['trouble']> {
    return (await this.next('trouble')).trouble;
  }

  /** Resolves when the engine says that it is in this phase. */
  async phase(wanted: Phase): Promise<void> {
    while ((await this.next('status')).phase !== wanted);
  }

  /** The page's answer to `canvas-wanted`. */
  freshCanvas(): void {
    this.canvas = document.createElement('canvas');
    document.body.replaceChildren(this.canvas);
    const canvas = this.canvas.transferControlToOffscreen();
    this.post({ type: 'canvas', canvas }, [canvas]);
  }

  close(): void {
    this.worker.terminate();
  }
}
