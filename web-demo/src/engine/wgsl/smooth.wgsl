// Guided filter, second half: the mean of the planes of all windows that a pixel is in, those that explain the mask well
// before those that do not (Chen, Chen and Huang, "Weighted Aggregation for Guided Image Filtering", SIViP 2020): a plain
// mean blurs corners. Of the two ways to upsample, guided and plain, the part that was asked for.

const RADIUS = 2;

struct Grid { height: u32, width: u32, /// 0: plain bilinear upsampling; 1: guided.
  guidance: f32 }

@group(0) @binding(0) var<uniform> grid: Grid;
@group(0) @binding(1) var<storage, read> planes: array<vec4f>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> steady: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> means: array<vec4f>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) at: vec3u) {
  let size = vec2i(i32(grid.width), i32(grid.height));
  let here = vec2i(at.xy);
  if (any(here >= size)) { return; }
  let first = max(here - RADIUS, vec2i(0));
  let last = min(here + RADIUS, size - 1);
  var sum = vec4f(0);
  var share = 0.0;
  for (var y = first.y; y <= last.y; y++) {
    for (var x = first.x; x <= last.x; x++) {
      sum += planes[y * size.x + x];
      share += weights[y * size.x + x];
    }
  }
  let i = here.y * size.x + here.x;
  means[i] = mix(vec4f(0, 0, 0, steady[i].a), sum / share, grid.guidance);
}
