/** Files that come by dropping, pasting or choosing: a picture, a video, or a bundle's folder. */

export interface Given {
  path: string;
  file: File;
}

export interface Receivers {
  media(file: File): void;
  bundle(files: Given[]): void;
  /** A sentence for people. */
  neither(sentence: string): void;
}

/** Listens on the whole page. */
export function receiveFiles(receivers: Receivers): void {
  const shade = (on: boolean) => document.body.classList.toggle('dropping', on);
  addEventListener('dragover', (event) => {
    event.preventDefault();
    shade(true);
  });
  addEventListener('dragleave', (event) => {
    if (event.relatedTarget === null) shade(false);
  });
  addEventListener('drop', (event) => {
    event.preventDefault();
    shade(false);
    if (event.dataTransfer) void dropped(event.dataTransfer).then((files) => sort(files, receivers));
  });
  addEventListener('paste', (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length > 0) sort(files.map((file) => ({ path: file.name, file })), receivers);
  });
}

/** A manifest or a model among them makes it a bundle; else the first picture or video counts. */
export function sort(files: Given[], { media, bundle, neither }: Receivers): void {
  if (files.some(({ path }) => /(^|\/)manifest\.json$|\.onnx$/.test(path))) {
    bundle(files);
    return;
  }
  const shown = files.find(({ file }) => /^(image|video)\//.test(file.type)) ?? files[0];
  if (shown === undefined) neither('Nothing was dropped that this page can open. Try a picture, a video, or a folder that vitexport wrote.');
  else media(shown.file);
}

/** All files, those in folders too. Entries must be asked for at once: after the event they are gone. */
async function dropped(transfer: DataTransfer): Promise<Given[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const plain = [...transfer.files].map((file) => ({ path: file.name, file }));
  if (entries.length === 0) return plain;
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry: FileSystemEntry): Promise<Given[]> {
  if (entry instanceof FileSystemFileEntry) {
    const file = await new Promise<File>((resolve, reject) => entry.file(resolve, reject));
    return [{ path: entry.fullPath.replace(/^\//, ''), file }];
  }
  if (!(entry instanceof FileSystemDirectoryEntry)) return [];
  const reader = entry.createReader();
  const found: FileSystemEntry[] = [];
  // A reader gives at most a hundred at a time: https://wicg.github.io/entries-api/#dom-filesystemdirectoryreader-readentries
  for (;;) {
    const batch = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (batch.length === 0) return (await Promise.all(found.map(filesOf))).flat();
    found.push(...batch);
  }
}
