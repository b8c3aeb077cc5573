// Pillow's resampling, second pass: each column to the new height; then what the network takes: (x / 255 - mean) / std,
// float32, one plane a channel. The bytes themselves are kept: the mask's guide is made of them.

struct Axis { count: u32, taps: u32, first: u32, lines: u32 }
struct Normalisation { mean: vec3f, deviation: vec3f }

@group(0) @binding(0) var<uniform> axis: Axis;  // count: output rows; first: the row that `narrowed` starts with; lines: columns
@group(0) @binding(1) var<storage, read> spans: array<vec2i>;
@group(0) @binding(2) var<storage, read> weights: array<i32>;
@group(0) @binding(3) var<storage, read> narrowed: array<u32>;
@group(0) @binding(4) var<uniform> normalisation: Normalisation;
@group(0) @binding(5) var<storage, read_write> planes: array<f32>;  // 3 x count x lines
@group(0) @binding(6) var<storage, read_write> pixels: array<u32>;  // count x lines

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= axis.lines || at.y >= axis.count) { return; }
  let span = spans[at.y];
  var sum = vec3i(1 << 21);
  for (var k = 0; k < span.y; k++) {
    let packed = narrowed[(u32(span.x + k) - axis.first) * axis.lines + at.x];
    sum += vec3i(vec3u(packed, packed >> 8, packed >> 16) & vec3u(255)) * weights[at.y * axis.taps + u32(k)];
  }
  let bytes = vec3u(clamp(sum >> vec3u(22), vec3i(0), vec3i(255)));
  let value = (vec3f(bytes) / 255 - normalisation.mean) / normalisation.deviation;
  let area = axis.count * axis.lines;
  let i = at.y * axis.lines + at.x;
  planes[i] = value.r;
  planes[area + i] = value.g;
  planes[2 * area + i] = value.b;
  pixels[i] = bytes.r | (bytes.g << 8) | (bytes.b << 16);
}
