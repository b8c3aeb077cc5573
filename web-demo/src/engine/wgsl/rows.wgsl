// Pillow's resampling, first pass: each row to the new width, in integers, rounded to bytes. See vitexport/resample.js,
// whose tables these are: weights have 22 fractional bits, and a sum of 255 times them stays below 2^31.

struct Axis {
  /// Output columns, and the most weights that one has.
  count: u32, taps: u32,
  /// The rows that the second pass will read.
  first: u32, lines: u32,
}

@group(0) @binding(0) var frame: texture_2d<f32>;
@group(0) @binding(1) var<uniform> axis: Axis;
@group(0) @binding(2) var<storage, read> spans: array<vec2i>;  // where each sum starts, and over how many pixels
@group(0) @binding(3) var<storage, read> weights: array<i32>;
@group(0) @binding(4) var<storage, read_write> narrowed: array<u32>;  // lines x count, 8 bits a channel

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= axis.count || at.y >= axis.lines) { return; }
  let span = spans[at.x];
  var sum = vec3i(1 << 21);  // one half
  for (var k = 0; k < span.y; k++) {
    let pixel = textureLoad(frame, vec2i(span.x + k, i32(at.y + axis.first)), 0).rgb;
    sum += vec3i(round(pixel * 255)) * weights[at.x * axis.taps + u32(k)];
  }
  let bytes = vec3u(clamp(sum >> vec3u(22), vec3i(0), vec3i(255)));
  narrowed[at.y * axis.count + at.x] = bytes.r | (bytes.g << 8) | (bytes.b << 16);
}
