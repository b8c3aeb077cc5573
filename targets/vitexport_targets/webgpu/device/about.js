/** What a browser tells of the device that it runs on: its name, and what a reader of its figures has to know. */

/** @typedef {{brand: string, version: string}} Brand */
/** @typedef {{model?: string, platform?: string, platformVersion?: string, architecture?: string, fullVersionList?: Brand[]}} Hints */
/** @typedef {{getHighEntropyValues: (hints: string[]) => Promise<Hints>}} UserAgentData */
/** @typedef {{charging: boolean}} Battery */
/** Parts of a browser's own description that not every browser has. @typedef {{userAgentData?: UserAgentData, deviceMemory?: number, getBattery?: () => Promise<Battery>}} Sometimes */

const LONGEST = 200;

/** @returns {Promise<{name: string, browser: string, facts: Record<string, string>}>} */
export async function about() {
  const known = /** @type {Navigator & Sometimes} */ (navigator);
  const hints = await known.userAgentData?.getHighEntropyValues(['model', 'platformVersion', 'architecture', 'fullVersionList']).catch(() => null);
  const battery = await known.getBattery?.().catch(() => null);
  const os = [hints?.platform, hints?.platformVersion].filter(Boolean).join(' ') || inBrackets(navigator.userAgent);
  const browser = fromBrands(hints?.fullVersionList) ?? fromUserAgent(navigator.userAgent);
  /** @type {Record<string, string>} */
  const facts = {
    os,
    browser,
    cores: String(navigator.hardwareConcurrency),
    screen: `${screen.width}x${screen.height} at ${devicePixelRatio}`,
    isolated: globalThis.crossOriginIsolated ? 'yes' : 'no',
  };
  if (known.deviceMemory) facts['memory'] = `${known.deviceMemory} GB or more`;
  if (battery) facts['power'] = battery.charging ? 'mains' : 'battery';
  return { name: printable(hints?.model || nameIn(navigator.userAgent) || os), browser: printable(browser), facts: trimmed(facts) };
}

/** `Pixel 8` of `(Linux; Android 14; Pixel 8)`, `iPhone` of `(iPhone; CPU iPhone OS ...)`. @param {string} agent */
function nameIn(agent) {
  const parts = inBrackets(agent).split(';').map((part) => part.trim());
  const [first = ''] = parts;
  if (/^(iPhone|iPad|iPod|Macintosh)/.test(first)) return first;
  const android = parts.findIndex((part) => part.startsWith('Android'));
  const model = android < 0 ? '' : (parts[android + 1] ?? '');
  return model.length > 1 ? model : ''; // Chrome says K for all of them
}

/** @param {string} agent */
const inBrackets = (agent) => /\(([^)]*)\)/.exec(agent)?.[1] ?? 'unknown device';

/** Browsers mix in a made-up brand, so that nobody relies on the list. @param {Brand[] | undefined} brands */
function fromBrands(brands) {
  const real = brands?.filter(({ brand }) => !/not.?a.?brand/i.test(brand.replace(/[^A-Za-z]/g, '')) && brand !== 'Chromium');
  const [first] = real?.length ? real : (brands?.filter(({ brand }) => brand === 'Chromium') ?? []);
  return first && `${first.brand} ${first.version}`;
}

/** @param {string} agent */
function fromUserAgent(agent) {
  const version = /Version\/([\d.]+).*Safari/.exec(agent)?.[1];
  if (version) return `Safari ${version}`;
  const [, name, number] = /(Firefox|FxiOS|CriOS|Edg|Chrome)\/([\d.]+)/.exec(agent) ?? [];
  return name && number ? `${name} ${number}` : 'unknown browser';
}

/** @param {string} text */
const printable = (text) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, ' ').trim().slice(0, LONGEST) || 'unknown device';

/** @param {Record<string, string>} facts */
const trimmed = (facts) => Object.fromEntries(Object.entries(facts).map(([key, value]) => [key, printable(value)]));
