// The mask at the frame's size, beside the frame's colours: each pixel asks the plane of its place about its own colour.

struct Matte {
  /// The mask's size, and the part of the frame that it covers, in the frame's pixels.
  mask: vec2f, origin: vec2f, extent: vec2f,
  /// Of the mask's values, the range around one half that is stretched to 0..1.
  softness: f32,
}

@group(0) @binding(0) var<uniform> matte: Matte;
@group(0) @binding(1) var frame: texture_2d<f32>;
@group(0) @binding(2) var<storage, read> planes: array<vec4f>;
@group(0) @binding(3) var matted: texture_storage_2d<rgba8unorm, write>;

// Bilinear, half-pixel centres, the border repeated. By hand: a sampler's weights have 8 bits, and slopes are steep.
fn plane(at: vec2f) -> vec4f {
  let place = clamp(at, vec2f(0), matte.mask - 1);
  let low = floor(place);
  let part = place - low;
  let width = u32(matte.mask.x);
  let a = vec2u(low);
  let b = min(a + 1, vec2u(matte.mask) - 1);
  return mix(
    mix(planes[a.y * width + a.x], planes[a.y * width + b.x], part.x),
    mix(planes[b.y * width + a.x], planes[b.y * width + b.x], part.x),
    part.y,
  );
}

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (any(at.xy >= textureDimensions(frame))) { return; }
  let colour = textureLoad(frame, at.xy, 0).rgb;
  let value = dot(plane((vec2f(at.xy) + 0.5 - matte.origin) / matte.extent * matte.mask - 0.5), vec4f(colour, 1));
  let person = clamp((value - 0.5) / matte.softness + 0.5, 0.0, 1.0);
  textureStore(matted, at.xy, vec4f(colour, person));
}
