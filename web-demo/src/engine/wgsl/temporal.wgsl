// Steadies the mask where nothing moves. An exponential mean over time, which forgets where the colours change (a hand
// passes), so that nothing trails behind; where they change only a little, what is remembered is held to what the mask
// shows nearby now (Karis, "High Quality Temporal Supersampling", SIGGRAPH 2014).

// Mean absolute differences of colours (0..1) over 3x3 pixels. A webcam's noise, a standard deviation of 2 of 255 at the
// network's size, makes a mean of 0.009 (2 / 255 * sqrt(2) * sqrt(2 / pi)): below QUIET.x nothing moved.
const QUIET = vec2f(0.012, 0.03);
const MOVED = vec2f(0.02, 0.06);
const SLACK = 0.05;

struct Memory { height: u32, width: u32, /// exp(-dt / time constant): 0 forgets all.
  keep: f32 }

@group(0) @binding(0) var<uniform> memory: Memory;
@group(0) @binding(1) var<storage, read> now: array<vec4f>;
@group(0) @binding(2) var<storage, read> before: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> steady: array<vec4f>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) at: vec3u) {
  let size = vec2i(i32(memory.width), i32(memory.height));
  let here = vec2i(at.xy);
  if (any(here >= size)) { return; }
  var difference = 0.0;
  var low = 1.0;
  var high = 0.0;
  var count = 0.0;
  for (var y = max(here.y - 1, 0); y < min(here.y + 2, size.y); y++) {
    for (var x = max(here.x - 1, 0); x < min(here.x + 2, size.x); x++) {
      let j = y * size.x + x;
      let pixel = now[j];
      difference += dot(abs(pixel.rgb - before[j].rgb), vec3f(1.0 / 3.0));
      low = min(low, pixel.a);
      high = max(high, pixel.a);
      count += 1;
    }
  }
  difference /= count;
  let i = here.y * size.x + here.x;
  let slack = mix(1.0, SLACK, smoothstep(QUIET.x, QUIET.y, difference));
  let remembered = clamp(before[i].a, low - slack, high + slack);
  let keep = memory.keep * (1 - smoothstep(MOVED.x, MOVED.y, difference));
  steady[i] = vec4f(now[i].rgb, mix(now[i].a, remembered, keep));
}
