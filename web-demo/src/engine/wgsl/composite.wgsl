// The person before another background, onto the canvas.

const BLUR = 0u;
const PICTURE = 1u;
const COLOUR = 2u;
const MASK = 3u;
const OFF = 4u;

/// Where hardly any background is in reach of the blur (deep in the person), the frame's own colour stands in.
const FAINT = 0.001;
/// Of the surroundings, the part that must be background for its light to wrap; at a straight edge it is one half.
const WRAP = vec2f(0.25, 0.75);

struct Scene {
  colour: vec3f,
  mode: u32,
  /// From the frame's uv to the picture's: it covers the frame.
  picture_scale: vec2f, picture_offset: vec2f,
  /// The shrunk background's texture holds this part of uv beyond the frame (its last block may be cut).
  shrunk_scale: vec2f,
  /// Left of it the frame is shown as it is.
  compare: f32,
  mirror: u32,
  light_wrap: f32,
}

@group(0) @binding(0) var<uniform> scene: Scene;
@group(0) @binding(1) var matted: texture_2d<f32>;
@group(0) @binding(2) var blurred: texture_2d<f32>;
@group(0) @binding(3) var picture: texture_2d<f32>;
@group(0) @binding(4) var linear: sampler;

@vertex
fn cover(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f {
  return vec4f(f32(i & 1) * 4 - 1, f32(i >> 1) * 4 - 1, 0, 1);  // one triangle that covers the canvas
}

@fragment
fn main(@builtin(position) position: vec4f) -> @location(0) vec4f {
  let size = textureDimensions(matted);
  var at = vec2u(position.xy);
  if (scene.mirror == 1) { at.x = size.x - 1 - at.x; }
  let uv = (vec2f(at) + 0.5) / vec2f(size);
  let pixel = textureLoad(matted, at, 0);
  let around = textureSampleLevel(blurred, linear, uv * scene.shrunk_scale, 0);
  var behind = scene.colour;
  if (scene.mode == BLUR) {
    behind = sqrt((around.rgb + FAINT * pixel.rgb * pixel.rgb) / (around.a + FAINT));
  } else if (scene.mode == PICTURE) {
    behind = textureSampleLevel(picture, linear, uv * scene.picture_scale + scene.picture_offset, 0).rgb;
  }
  let light = behind * scene.light_wrap * smoothstep(WRAP.x, WRAP.y, around.a);
  let person = 1 - (1 - pixel.rgb) * (1 - light);  // "screen": light is added, and white stays white
  var shown = mix(behind, person, pixel.a);
  if (scene.mode == MASK) { shown = vec3f(pixel.a); }
  if (scene.mode == OFF || position.x < scene.compare * f32(size.x)) { shown = pixel.rgb; }
  return vec4f(shown, 1);
}
