// Guided filter, second half: the mean of the planes of all windows that a pixel is in, those that explain the mask well
// before those that do not (Chen, Chen and Huang, "Weighted Aggregation for Guided Image Filtering", SIViP 2020): a plain
// mean blurs corners. Of the two ways to upsample, guided and plain, the part that was asked for.

const RADIUS = 2;
const TILE = 8;
const SIDE = TILE + 2 * RADIUS;

struct Grid { height: u32, width: u32, /// 0: plain bilinear upsampling; 1: guided.
  guidance: f32 }

@group(0) @binding(0) var<uniform> grid: Grid;
@group(0) @binding(1) var<storage, read> planes: array<vec4f>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> steady: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> means: array<vec4f>;

var<workgroup> tile: array<vec4f, SIDE * SIDE>;
var<workgroup> shares: array<f32, SIDE * SIDE>;

@compute @workgroup_size(TILE, TILE)
fn main(@builtin(global_invocation_id) at: vec3u, @builtin(local_invocation_index) index: u32,
        @builtin(workgroup_id) group: vec3u) {
  let size = vec2i(i32(grid.width), i32(grid.height));
  let corner = vec2i(group.xy) * TILE - RADIUS;
  for (var i = i32(index); i < SIDE * SIDE; i += TILE * TILE) {
    let source = corner + vec2i(i % SIDE, i / SIDE);
    if (all(source >= vec2i(0)) && all(source < size)) {
      tile[i] = planes[source.y * size.x + source.x];
      shares[i] = weights[source.y * size.x + source.x];
    }
  }
  workgroupBarrier();

  let here = vec2i(at.xy);
  if (any(here >= size)) { return; }
  let first = max(here - RADIUS, vec2i(0)) - corner;
  let last = min(here + RADIUS, size - 1) - corner;
  var sum = vec4f(0);
  var share = 0.0;
  for (var y = first.y; y <= last.y; y++) {
    for (var x = first.x; x <= last.x; x++) {
      sum += tile[y * SIDE + x];
      share += shares[y * SIDE + x];
    }
  }
  let i = here.y * size.x + here.x;
  means[i] = mix(vec4f(0, 0, 0, steady[i].a), sum / share, grid.guidance);
}
