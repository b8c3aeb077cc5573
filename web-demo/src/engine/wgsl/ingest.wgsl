// A video frame into a texture of our own, so that the camera gets its frame back before the network has run.
// Sampled at pixel centres: an RGB frame arrives as it is, and the chroma of a YUV frame is interpolated.

@group(0) @binding(0) var source: texture_external;
@group(0) @binding(1) var nearest: sampler;
@group(0) @binding(2) var frame: texture_storage_2d<rgba8unorm, write>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) at: vec3u) {
  let size = textureDimensions(frame);
  if (any(at.xy >= size)) { return; }
  let uv = (vec2f(at.xy) + 0.5) / vec2f(size);
  textureStore(frame, at.xy, vec4f(textureSampleBaseClampToEdge(source, nearest, uv).rgb, 1));
}
