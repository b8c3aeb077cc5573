// The background at reduced size: what of each block of pixels is not the person, as light (squared values are near
// enough to linear light that lamps stay bright when blurred), premultiplied by how much that is. Blurring both and
// dividing leaves the person out (Knutsson and Westin, "Normalized and Differential Convolution", CVPR 1993).

@group(0) @binding(0) var<uniform> factor: u32;
@group(0) @binding(1) var matted: texture_2d<f32>;
@group(0) @binding(2) var shrunk: texture_storage_2d<rgba16float, write>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (any(at.xy >= textureDimensions(shrunk))) { return; }
  let first = at.xy * factor;
  let end = min(first + factor, textureDimensions(matted));
  var sum = vec4f(0);
  for (var y = first.y; y < end.y; y++) {
    for (var x = first.x; x < end.x; x++) {
      let pixel = textureLoad(matted, vec2u(x, y), 0);
      sum += vec4f(pixel.rgb * pixel.rgb, 1) * (1 - pixel.a);
    }
  }
  textureStore(shrunk, at.xy, sum / f32((end.x - first.x) * (end.y - first.y)));
}
