// Guided filter, first half: in the window around each pixel of the mask, the plane through colour space that tells the
// person best: p = a . rgb + b (He, Sun and Tang, "Guided Image Filtering", PAMI 2013, equations 14 to 16; evaluated at
// the frame's size it upsamples: He and Sun, "Fast Guided Filter", 2015). And how well it tells them.

const RADIUS = 2;

struct Grid {
  height: u32, width: u32,
  /// Variance of colours (0..1) below which a window counts as flat.
  epsilon: f32,
  /// Variance of the mask that a plane may leave unexplained before it counts for less.
  residual: f32,
}

@group(0) @binding(0) var<uniform> grid: Grid;
@group(0) @binding(1) var<storage, read> steady: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> planes: array<vec4f>;  // a, b; times the weight
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) at: vec3u) {
  let size = vec2i(i32(grid.width), i32(grid.height));
  let here = vec2i(at.xy);
  if (any(here >= size)) { return; }
  let first = max(here - RADIUS, vec2i(0));
  let last = min(here + RADIUS, size - 1);
  let i = here.y * size.x + here.x;
  // Sums of differences from the middle: float32 leaves little of small variances of large values.
  let middle = steady[i];
  var sum = vec4f(0);       // of the colours, and of p
  var with_p = vec3f(0);    // colour * p
  var squares = vec4f(0);   // rr, gg, bb, pp
  var products = vec3f(0);  // rg, gb, br
  for (var y = first.y; y <= last.y; y++) {
    for (var x = first.x; x <= last.x; x++) {
      let pixel = steady[y * size.x + x] - middle;
      sum += pixel;
      with_p += pixel.rgb * pixel.a;
      squares += pixel * pixel;
      products += pixel.rgb * pixel.gbr;
    }
  }
  let share = 1 / f32((last.x - first.x + 1) * (last.y - first.y + 1));
  let mean = sum * share;
  let covariance = with_p * share - mean.rgb * mean.a;
  let variance = squares * share - mean * mean + vec4f(vec3f(grid.epsilon), 0);
  let mixed = products * share - mean.rgb * mean.gbr;
  // The inverse of the symmetric matrix by its cofactors.
  let m = mat3x3f(variance.r, mixed.r, mixed.b, mixed.r, variance.g, mixed.g, mixed.b, mixed.g, variance.b);
  let a = vec3f(
    dot(covariance, cross(m[1], m[2])),
    dot(covariance, cross(m[2], m[0])),
    dot(covariance, cross(m[0], m[1])),
  ) / dot(m[0], cross(m[1], m[2]));
  let b = middle.a + mean.a - dot(a, middle.rgb + mean.rgb);
  let weight = 1 / (max(variance.a - dot(a, covariance), 0.0) + grid.residual);
  planes[i] = vec4f(a, b) * weight;
  weights[i] = weight;
}
