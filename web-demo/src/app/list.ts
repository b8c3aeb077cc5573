/** `models.json`: all models the page knows of. `prepare.py` writes it from the bundles' manifests. */

import type { Size, WebRuntime } from 'vitexport/manifest';

/** One bundle, and what one chooses it by. */
export interface ListedModel {
  id: string;
  /** The bundle's folder, relative to the list. */
  bundle: string;
  manifest_sha256: string;
  licence: string;
  origin: string;
  sizes: Size[];
  precisions: { name: string; bytes: number }[];
}

export interface ModelList {
  schema_version: 1;
  /** Shared by all models; its files are relative to the list. */
  runtime: WebRuntime;
  /** The first is what the page opens with. */
  models: ListedModel[];
}
