// One direction of a Gaussian. Twice, across and down, it is a round blur.

struct Kernel { step: vec2i, radius: i32 }

@group(0) @binding(0) var<uniform> kernel: Kernel;
@group(0) @binding(1) var<storage, read> weights: array<f32>;  // 0 to radius; all of them, with their mirror images, add up to 1
@group(0) @binding(2) var source: texture_2d<f32>;
@group(0) @binding(3) var blurred: texture_storage_2d<rgba16float, write>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) at: vec3u) {
  let size = vec2i(textureDimensions(source));
  let here = vec2i(at.xy);
  if (any(here >= size)) { return; }
  var sum = textureLoad(source, here, 0) * weights[0];
  for (var k = 1; k <= kernel.radius; k++) {
    let before = clamp(here - kernel.step * k, vec2i(0), size - 1);
    let after = clamp(here + kernel.step * k, vec2i(0), size - 1);
    sum += (textureLoad(source, before, 0) + textureLoad(source, after, 0)) * weights[k];
  }
  textureStore(blurred, here, sum);
}
