/** Pictures to stand before: a few drawn here, so that none has to be fetched, and one's own. */

import { input, made, part } from './dom';

/** The size they are drawn at; the engine covers the frame with it. */
const WIDTH = 1280;
const HEIGHT = 720;

interface Scene {
  name: string;
  /** Of a gradient, top to bottom. */
  colours: readonly string[];
  /** Blurred lights far behind: colour, and x, y, radius as parts of the height. */
  lights: readonly (readonly [colour: string, x: number, y: number, radius: number])[];
}

const SCENES: readonly Scene[] = [
  {
    name: 'Dusk',
    colours: ['#2b2a4c', '#7a4b6b', '#e3926b'],
    lights: [['#ffd9a0', 0.25, 0.72, 0.1], ['#ffb3a0', 0.55, 0.8, 0.07], ['#ffe9c7', 1.3, 0.7, 0.13], ['#f7c6d0', 1.55, 0.82, 0.06]],
  },
  {
    name: 'Studio',
    colours: ['#e9e6df', '#d8d3c8', '#b9b2a4'],
    lights: [['#ffffff', 0.45, 0.2, 0.45], ['#fff7e6', 1.4, 0.3, 0.3]],
  },
  {
    name: 'Forest',
    colours: ['#bcd3b0', '#5d8a66', '#20402f'],
    lights: [['#f2f7c9', 0.3, 0.2, 0.12], ['#dcedb5', 0.8, 0.12, 0.09], ['#f8f9d9', 1.35, 0.25, 0.15], ['#c8e0a8', 1.6, 0.4, 0.07]],
  },
];

/**
 * The buttons of mode `picture`. The first scene is chosen, and handed over on the first call of `ensure`, when it is
 * needed. `onUnreadable` gets a sentence.
 */
export function backdrops(use: (bitmap: ImageBitmap) => void, onUnreadable: (sentence: string) => void): { ensure(): void } {
  const group = part('backdrops');
  let handedOver = false;
  const press = (pressed: HTMLElement) => {
    for (const other of group.querySelectorAll('[aria-pressed]')) other.setAttribute('aria-pressed', String(other === pressed));
    handedOver = true;
  };

  for (const scene of SCENES) {
    const choice = made('button');
    choice.type = 'button';
    choice.title = scene.name;
    choice.setAttribute('aria-label', scene.name);
    choice.setAttribute('aria-pressed', 'false');
    const preview = made('canvas');
    preview.width = 96;
    preview.height = 54;
    const context = preview.getContext('2d');
    if (context) draw(context, scene);
    choice.append(preview);
    choice.addEventListener('click', () => {
      press(choice);
      use(rendered(scene));
    });
    group.append(choice);
  }

  const own = made('label', 'Open…', 'button');
  own.htmlFor = 'backdrop-file';
  const file = made('input', '', 'unseen');
  file.type = 'file';
  file.accept = 'image/*';
  file.id = 'backdrop-file';
  group.append(file, own);
  file.addEventListener('change', () => {
    const [picture] = file.files ?? [];
    if (picture === undefined) return;
    createImageBitmap(picture, { imageOrientation: 'from-image' }).then(
      (bitmap) => {
        press(own);
        use(bitmap);
      },
      () => onUnreadable(`${picture.name} cannot be read as a picture. Try a PNG, JPEG or WebP.`),
    );
  });

  return {
    ensure() {
      if (!handedOver) group.querySelector('button')?.click();
    },
  };
}

function rendered(scene: Scene): ImageBitmap {
  const canvas = new OffscreenCanvas(WIDTH, HEIGHT);
  const context = canvas.getContext('2d');
  if (context) draw(context, scene);
  return canvas.transferToImageBitmap();
}

function draw(context: CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D, scene: Scene): void {
  const { width, height } = context.canvas;
  const ground = context.createLinearGradient(0, 0, 0, height);
  scene.colours.forEach((colour, i) => ground.addColorStop(i / (scene.colours.length - 1), colour));
  context.fillStyle = ground;
  context.fillRect(0, 0, width, height);
  for (const [colour, x, y, radius] of scene.lights) {
    const light = context.createRadialGradient(x * height, y * height, 0, x * height, y * height, radius * height);
    light.addColorStop(0, `${colour}b0`);
    light.addColorStop(0.7, `${colour}70`);
    light.addColorStop(1, `${colour}00`);
    context.fillStyle = light;
    context.fillRect(0, 0, width, height);
  }
}

/** For a page whose engine was started anew: what was handed over is gone. */
export function pressedBackdrop(): void {
  part('backdrops').querySelector<HTMLElement>('button[aria-pressed=true]')?.click();
  input('backdrop-file').value = '';
}
