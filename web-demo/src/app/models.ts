/** Which model runs: those that are listed, and bundles that one drops onto the page. */

import { type ListedModel, type ModelList } from './list';
import type { ModelSource } from '../engine/protocol';
import type { Runtime } from './engine';
import { made, part, select } from './dom';

/** What one should know of a model before one uses it, by its licence or its origin. */
const WARNINGS: readonly (readonly [of: 'licence' | 'origin', RegExp, string])[] = [
  ['licence', /non-?commercial|\bnc\b|nvidia/i, 'Not for commercial use.'],
  // NVIDIA's SegFormer weights: the hub has their licence as "other".
  ['origin', /segformer/i, 'Not for commercial use.'],
  ['licence', /^unknown$/i, 'Ask its author before you use it.'],
  ['origin', /^random/i, 'Its weights are random: it is here to be timed, and its mask means nothing.'],
];

const LIST = new URL('./models/models.json', document.baseURI);

/** Raises an `Error` with a sentence where there is no list: the page was deployed without models. */
export async function fetchList(): Promise<ModelList> {
  const response = await fetch(LIST).catch((cause: unknown) => {
    throw new Error('The list of models cannot be reached. Is there a network?', { cause });
  });
  if (!response.ok) throw new Error(`The list of models answered ${response.status}. Was the page deployed whole?`);
  const list: unknown = await response.json().catch(() => null);
  if (!isList(list)) throw new Error('The list of models is damaged. Was the page deployed whole?');
  return list;
}

function isList(value: unknown): value is ModelList {
  return typeof value === 'object' && value !== null && 'models' in value && Array.isArray(value.models) && value.models.length > 0;
}

export const sharedRuntime = ({ runtime }: ModelList): Runtime => ({ builds: runtime.builds, base: LIST.href });

export interface ChosenModel {
  source: ModelSource;
  precisions: string[];
}

/** The list as a `<select>`, with the licence of what is chosen below it. `onChoice` is called when that changes. */
export class ModelChoice {
  readonly #select = select('model');
  readonly #listed = new Map<string, ListedModel>();
  #dropped: ChosenModel | null = null;
  #drops = 0;

  constructor({ models }: ModelList, preferred: string | null, onChoice: () => void) {
    for (const model of models) {
      this.#listed.set(model.id, model);
      this.#select.append(new Option(titleOf(model), model.id));
    }
    if (preferred !== null && this.#listed.has(preferred)) this.#select.value = preferred;
    this.#show();
    this.#select.addEventListener('change', () => {
      this.#show();
      onChoice();
    });
  }

  get chosen(): ChosenModel {
    const listed = this.#listed.get(this.#select.value);
    if (listed === undefined) {
      if (this.#dropped !== null) return this.#dropped;
      throw new Error('The list of models is empty. Was the page deployed whole?');
    }
    return {
      source: { from: 'url', url: new URL(listed.bundle, LIST).href },
      precisions: listed.precisions.map(({ name }) => name),
    };
  }

  /** Back to the first that is listed. */
  reset(): void {
    this.#select.selectedIndex = 0;
    this.#show();
  }

  /**
   * Chooses files that were dropped: a bundle's, with its manifest. False where others were dropped meanwhile. Raises an
   * `Error` with a sentence.
   */
  async drop(files: { path: string; file: Blob }[]): Promise<boolean> {
    this.#drops += 1;
    const drop = this.#drops;
    const manifest = files.filter(({ path }) => /(^|\/)manifest\.json$/.test(path)).sort((a, b) => a.path.length - b.path.length)[0];
    if (manifest === undefined) throw new Error('There is no manifest.json in it: it is no bundle of vitexport. Choose the folder that it lies in.');
    const { name, licence, origin, precisions } = readManifest(await manifest.file.text());
    if (drop !== this.#drops) return false;
    this.#dropped = { source: { from: 'files', files }, precisions };
    this.#select.querySelector('option[value=""]')?.remove();
    const option = new Option(`${name} (yours)`, '');
    this.#select.append(option);
    option.selected = true;
    this.#licence(licence, origin);
    return true;
  }

  #show(): void {
    const listed = this.#listed.get(this.#select.value);
    if (listed !== undefined) this.#licence(listed.licence, listed.origin);
  }

  #licence(licence: string, origin: string): void {
    const about = { licence, origin };
    const warning = WARNINGS.find(([of, pattern]) => pattern.test(about[of]))?.[2];
    const line = part('licence');
    line.textContent = `Licence: ${licence}. Weights: ${origin}.`;
    if (warning !== undefined) line.append(' ', made('strong', warning));
  }
}

function titleOf({ id, sizes, precisions }: ListedModel): string {
  const size = sizes.map(({ height, width }) => `${height}×${width}`).join(', ');
  const smallest = Math.min(...precisions.map(({ bytes }) => bytes));
  return `${id} · ${size} · ${(smallest / 1e6).toFixed(smallest < 1e7 ? 1 : 0)} MB`;
}

/** What the page shows of a dropped bundle; the engine checks the rest. */
function readManifest(text: string): { name: string; licence: string; origin: string; precisions: string[] } {
  try {
    const { model, provenance, rungs } = JSON.parse(text) as {
      model: string;
      provenance: { licence: string; origin: string };
      rungs: { variants: { precision: string }[] }[];
    };
    const precisions = (rungs[0]?.variants ?? []).map(({ precision }) => precision);
    return { name: String(model), licence: String(provenance.licence), origin: String(provenance.origin), precisions };
  } catch (cause) {
    throw new Error('Its manifest.json cannot be read. Export the model again with vitexport --target webgpu.', { cause });
  }
}
