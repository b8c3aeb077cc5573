// From the network's output to what the mask is made of: for each of its pixels the colour that the network saw there,
// and the probability of a person.

struct Output {
  /// Of the output.
  height: u32, width: u32,
  /// Its planes, and which of them is the person's.
  classes: u32, person: u32,
  /// Of the input, whose pixels are the guide.
  guide_height: u32, guide_width: u32,
  /// 1: the values are logits, and a softmax over the classes makes probabilities of them (of one, a sigmoid); 0: they
  /// are probabilities. The rule is `personMask`'s, of vitexport.js.
  logits: u32,
}

@group(0) @binding(0) var<uniform> output: Output;
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read> guide: array<u32>;
@group(0) @binding(3) var<storage, read_write> now: array<vec4f>;  // red, green, blue, person: 0..1

fn probability(i: u32) -> f32 {
  let area = output.height * output.width;
  let own = values[output.person * area + i];
  if (output.logits == 0) { return clamp(own, 0, 1); }
  if (output.classes == 1) { return 1 / (1 + exp(min(-own, 80.0))); }
  var sum = 0.0;  // of exp(other - own): the softmax without a division by an infinity
  for (var c = 0u; c < output.classes; c++) { sum += exp(min(values[c * area + i] - own, 80.0)); }
  return 1 / sum;
}

// The mean of the input's pixels that the mask's pixel covers, be it only in part.
fn colour(at: vec2u) -> vec3f {
  let size = vec2u(output.width, output.height);
  let full = vec2u(output.guide_width, output.guide_height);
  let first = at * full / size;
  let end = max(first + 1, ((at + 1) * full + size - 1) / size);
  var sum = vec3u(0);
  for (var y = first.y; y < end.y; y++) {
    for (var x = first.x; x < end.x; x++) {
      let packed = guide[y * full.x + x];
      sum += vec3u(packed, packed >> 8, packed >> 16) & vec3u(255);
    }
  }
  let covered = (end - first).x * (end - first).y;
  return vec3f(sum) / (255 * f32(covered));
}

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= output.width || at.y >= output.height) { return; }
  let i = at.y * output.width + at.x;
  now[i] = vec4f(colour(at.xy), probability(i));
}
