/** The page: what its controls do, and what it shows of what the engine says. */

import type { Mode, ModelFacts, Notice, StepReason, Trouble, TroubleCode, Wishes } from '../engine/protocol';
import { asked, type Asked } from './asked';
import { backdrops, pressedBackdrop } from './backdrops';
import { bench } from './bench';
import { button, element, input, part, select } from './dom';
import { receiveFiles, sort, type Receivers } from './drop';
import { STEPS, paceOf, showFigures, showLadder, stepName } from './instruments';
import type { ModelList } from './list';
import { lookControls, type LookControls } from './look';
import { ModelChoice, fetchList, sharedRuntime } from './models';
import { keepOffline, keepWhatWasFetched } from './offline';
import { copyOrSave } from './report';
import { Session, type Events, type Opener } from './session';
import { Recording, openTrack, saveStill } from './share';
import { cameras, openCamera, type Camera } from './sources/camera';
import { openFile } from './sources/file';
import { openSample } from './sources/sample';
import { describe, say, setState, showStatus, state } from './status';
import { cameraTrouble, clearTrouble, inOneLine, note, showTrouble, type Way } from './trouble';

const stillPreferred = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

export class Demo {
  readonly #asked: Asked;
  readonly #look: LookControls;
  readonly #models: ModelChoice;
  readonly #session: Session;
  readonly #backdrops: ReturnType<typeof backdrops>;
  /** What the session goes on from by itself is said until it has. */
  #recovering: TroubleCode | null = null;
  #recording: Recording | null = null;
  #kept = false;

  /** Raises an `Error` with a sentence where the page was deployed without its models. */
  static async open(): Promise<Demo> {
    return new Demo(await fetchList(), asked(new URLSearchParams(location.search)));
  }

  private constructor(list: ModelList, wanted: Asked) {
    this.#asked = wanted;
    this.#look = lookControls((look) => {
      this.#session.engine.look(look);
      this.#showMode(look.mode);
    });
    this.#models = new ModelChoice(list, wanted.model, () => this.#useModel());
    this.#session = new Session(sharedRuntime(list), this.#events(), this.#look.current);
    this.#backdrops = backdrops(
      (bitmap) => this.#session.engine.send({ type: 'background', bitmap }, [bitmap]),
      (sentence) => note(sentence),
    );
    this.#showCanvas();
    this.#connect();
    this.#useModel();
    setState('welcome');
    void this.#openWhatWasAsked();
    void keepOffline((takeOver) => offerNewer(takeOver));
  }

  /** For calls: the picture as it is shown, as a track. */
  track(): Promise<MediaStreamTrack> {
    return openTrack(this.#session.engine);
  }

  report = () => this.#session.report();

  /** What a driver does that is reset: for whoever wants to see the page recover. */
  loseDevice(): void {
    this.#session.engine.send({ type: 'lose-device' });
  }

  // ------------------------------------------------------------------------------------------------------- sources

  readonly #openCamera = (deviceId: string | null = null) =>
    this.#open((engine) => openCamera(engine, deviceId, () => this.#cameraEnded()), 'camera');

  readonly #openSample = () => this.#open((engine) => openSample(engine, { still: stillPreferred() }), 'sample');

  readonly #openFile = (file: File) => this.#open((engine) => openFile(engine, file), 'file');

  async #open(opener: Opener, kind: 'camera' | 'sample' | 'file'): Promise<void> {
    clearTrouble();
    note('');
    if (state() === 'welcome') setState('waiting');
    if (kind === 'camera') say('Waiting for the camera …');
    try {
      const source = await this.#session.open(opener);
      if (source === null) return;
      this.#look.setMirror(source.kind === 'camera');
      part('source-name').textContent = source.name;
      await this.#showCameras(source.kind === 'camera' ? (source as Camera).deviceId : null);
    } catch (error) {
      const otherWays = this.#otherSources();
      if (kind === 'camera') showTrouble({ ...cameraTrouble(error), ways: [{ label: 'Try again', go: () => void this.#openCamera() }, ...otherWays] });
      else if (this.#session.source === null) showTrouble({ what: sentenceOf(error), next: 'Or choose another source.', ways: this.#anySource() });
      else note(sentenceOf(error));
    }
  }

  #cameraEnded(): void {
    this.#session.close();
    showTrouble({ what: 'The camera was disconnected.', next: 'Connect it again, or choose another source.', ways: this.#anySource() });
  }

  #anySource(): Way[] {
    return [{ label: 'Use my camera', go: () => void this.#openCamera() }, ...this.#otherSources()];
  }

  #otherSources(): Way[] {
    return [
      { label: 'Show a sample', go: () => void this.#openSample() },
      { label: 'Open a file …', go: () => input('file').click() },
    ];
  }

  async #showCameras(current: string | null): Promise<void> {
    const devices = current === null ? [] : await cameras();
    const options = devices.map(({ deviceId, label }, i) => new Option(label || `Camera ${i + 1}`, deviceId, false, deviceId === current));
    select('devices').replaceChildren(...options);
    part('devices-field').hidden = options.length < 2;
  }

  /** A camera that was allowed before needs no click. */
  async #openWhatWasAsked(): Promise<void> {
    const { source, benchFrames } = this.#asked;
    if (source === 'camera' || (source === null && (await cameraIsAllowed()))) await this.#openCamera();
    else if (source === 'sample') await this.#openSample();
    if (benchFrames !== null) await bench(this.#session.engine, benchFrames);
  }

  // --------------------------------------------------------------------------------------------------------- model

  #wishes(): Wishes {
    const step = STEPS.find((known) => known === select('step').value);
    const precision = select('precision').value;
    return { ...(step && { step }), ...(precision && { precision }), ...(crossOriginIsolated && { threads: threads() }) };
  }

  #useModel(): void {
    const chosen = this.#models.chosen;
    const precision = select('precision');
    const kept = precision.value;
    precision.replaceChildren(new Option('Automatic', ''), ...chosen.precisions.map((name) => new Option(name)));
    precision.value = chosen.precisions.includes(kept) ? kept : '';
    clearTrouble();
    note('');
    if (this.#session.source !== null) setState('waiting');
    this.#session.useModel(chosen, this.#wishes());
  }

  #useFirstModel(): void {
    this.#models.reset();
    this.#useModel();
  }

  #chooseAutomatically(): void {
    select('step').value = '';
    select('precision').value = '';
    this.#useModel();
  }

  async #dropBundle(files: { path: string; file: File }[]): Promise<void> {
    try {
      if (await this.#models.drop(files)) this.#useModel();
    } catch (error) {
      note(sentenceOf(error));
    }
  }

  // -------------------------------------------------------------------------------------------------------- engine

  #events(): Events {
    return {
      status: (notice) => this.#onStatus(notice),
      model: ({ facts, steps }) => {
        showLadder(steps);
        this.#sayIfRefused(facts, steps);
        this.#showFigures();
      },
      stats: (stats) => {
        if (state() !== 'running') setState('running');
        part('pace').textContent = paceOf(stats, this.#session.facts);
        this.#showFigures();
        void this.#keep();
      },
      trouble: ({ trouble, steps }) => {
        showLadder(steps);
        this.#onTrouble(trouble);
      },
      size: ({ width, height }) => part('stage').style.setProperty('--aspect', String(width / height)),
      crash: (reason) =>
        showTrouble({
          what: 'The engine stopped.',
          next: `The browser says: ${reason}. Start it again; if that does not help, reload the page.`,
          ways: [{ label: 'Start again', go: () => this.#restart() }],
        }),
    };
  }

  #onStatus(notice: Extract<Notice, { type: 'status' }>): void {
    if (notice.phase === 'first-frame' && this.#session.source === null) say('Ready.');
    else showStatus(notice);
    if (notice.phase !== 'running') return;
    if (this.#session.source !== null) setState('running');
    if (this.#recovering === 'device-lost') note('');
    this.#recovering = null;
  }

  /** A step that was chosen and cannot run here: what runs instead was not asked for. */
  #sayIfRefused({ step }: ModelFacts, steps: readonly StepReason[]): void {
    const { step: wanted } = this.#wishes();
    if (wanted === undefined || wanted === step) return;
    const reason = steps.find((each) => each.step === wanted)?.reason ?? 'the model has nothing for it';
    note(`‘${stepName(wanted)}’ cannot be had: ${reason}. It runs on ‘${stepName(step)}’ instead.`);
  }

  #onTrouble(trouble: Trouble): void {
    if (trouble.code === 'source-ended' && this.#session.source?.kind !== 'video') {
      // Of a camera the page is told as well, before or after.
      if (this.#session.source !== null) this.#cameraEnded();
    } else if (trouble.recovers) {
      this.#recovering = trouble.code;
      note(inOneLine(trouble));
    } else {
      showTrouble({ what: trouble.sentence, next: trouble.wayOn, ways: this.#waysOn(trouble.code) });
    }
  }

  #waysOn(code: TroubleCode): Way[] {
    const again: Way = { label: 'Try again', go: () => this.#useModel() };
    const first: Way = { label: 'Use the default model', go: () => this.#useFirstModel() };
    const restart: Way = { label: 'Start again', go: () => this.#restart() };
    const ways: Record<TroubleCode, Way[]> = {
      'no-webgpu': [{ label: 'Choose automatically', go: () => this.#chooseAutomatically() }],
      'model-missing': [again, first],
      'model-damaged': [again, first],
      'model-unsuited': [first],
      'no-step': [{ label: 'Choose automatically', go: () => this.#chooseAutomatically() }, first],
      'out-of-memory': [restart, first],
      'device-lost': [restart],
      'source-ended': this.#anySource(),
      internal: [restart],
    };
    return ways[code];
  }

  #restart(): void {
    clearTrouble();
    this.#session.restart(this.#look.current);
    this.#showCanvas();
    this.#useModel();
    if (this.#look.current.mode === 'picture') pressedBackdrop();
    this.#session.engine.send({ type: 'instruments', on: element('instruments', HTMLDetailsElement).open });
    this.#session.reopen().catch((error: unknown) => note(sentenceOf(error)));
  }

  async #keep(): Promise<void> {
    if (this.#kept) return;
    this.#kept = true;
    const { fetched } = await this.#session.report();
    part('kept').hidden = !(await keepWhatWasFetched(fetched));
  }

  // ------------------------------------------------------------------------------------------------------ controls

  #connect(): void {
    for (const id of ['start-camera', 'camera']) button(id).addEventListener('click', () => void this.#openCamera());
    for (const id of ['start-sample', 'sample']) button(id).addEventListener('click', () => void this.#openSample());
    select('devices').addEventListener('change', () => void this.#openCamera(select('devices').value));

    const receivers: Receivers = {
      media: (file) => void this.#openFile(file),
      bundle: (files) => void this.#dropBundle(files),
      neither: (sentence) => note(sentence),
    };
    receiveFiles(receivers);
    for (const id of ['file', 'bundle']) {
      const chooser = input(id);
      chooser.addEventListener('change', () => {
        sort([...(chooser.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file })), receivers);
        chooser.value = '';
      });
    }

    for (const step of STEPS) select('step').append(new Option(stepName(step), step));
    select('step').value = this.#asked.step ?? '';
    if (this.#asked.precision !== null && this.#models.chosen.precisions.includes(this.#asked.precision)) {
      select('precision').append(new Option(this.#asked.precision));
      select('precision').value = this.#asked.precision;
    }
    for (const id of ['step', 'precision']) select(id).addEventListener('change', () => this.#useModel());

    document.addEventListener('visibilitychange', () => {
      this.#session.engine.send({ type: 'visible', visible: document.visibilityState === 'visible' });
    });
    element('controls', HTMLFormElement).addEventListener('submit', (event) => event.preventDefault());
    element('instruments', HTMLDetailsElement).addEventListener('toggle', ({ currentTarget }) => {
      this.#session.engine.send({ type: 'instruments', on: (currentTarget as HTMLDetailsElement).open });
    });
    button('copy').addEventListener('click', () => void this.#copyReport());
    button('record').addEventListener('click', () => void this.#toggleRecording().catch((error: unknown) => note(sentenceOf(error))));
    button('still').addEventListener('click', () => void saveStill(this.#session.engine).catch((error: unknown) => note(sentenceOf(error))));
  }

  async #copyReport(): Promise<void> {
    const went = await copyOrSave(JSON.stringify(await this.report(), null, 2), 'background-blur-report.json');
    say(went === 'copied' ? 'The report is on the clipboard.' : 'The report was saved as a file.');
  }

  async #toggleRecording(): Promise<void> {
    const toggle = button('record');
    const running = this.#recording;
    if (running === null) {
      this.#recording = new Recording(await this.track());
    } else {
      this.#recording = null;
      await running.finish();
      this.#session.engine.send({ type: 'unshare' });
    }
    toggle.setAttribute('aria-pressed', String(running === null));
    toggle.textContent = running === null ? 'Stop and save' : 'Record';
  }

  #showCanvas(): void {
    part('pictures').replaceChildren(this.#session.engine.canvas);
    this.#showMode(this.#look.current.mode);
  }

  #showMode(mode: Mode): void {
    this.#session.engine.canvas.setAttribute('aria-label', describe(mode));
    if (mode === 'picture') this.#backdrops.ensure();
  }

  #showFigures(): void {
    if (element('instruments', HTMLDetailsElement).open) showFigures(this.#session.facts, this.#session.cold, this.#session.stats);
  }
}

const sentenceOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

/** Half of the cores, since threads that wait for one another stop the picture where all are busy; four are enough. */
const threads = () => Math.max(1, Math.min(4, Math.floor(navigator.hardwareConcurrency / 2)));

async function cameraIsAllowed(): Promise<boolean> {
  try {
    return (await navigator.permissions.query({ name: 'camera' as PermissionName })).state === 'granted';
  } catch {
    return false; // Firefox does not know this permission's name
  }
}

function offerNewer(takeOver: () => void): void {
  note('There is a newer version of this page. ');
  const reload = document.createElement('button');
  reload.type = 'button';
  reload.textContent = 'Reload';
  reload.addEventListener('click', takeOver);
  part('notice').append(reload);
}
