import Foundation

/// Pillow's resampling, to the bit: what `Image.resize` of Pillow computes on 8-bit RGB.
///
/// The filter is separable and widens with the downscale factor, so shrinking is antialiased. Weights are computed in
/// double precision, normalised, and rounded to 22 fractional bits; each pass (columns first, then rows) sums in
/// integers, rounds and clips to a byte. Nearest neighbour is a walk through pixel centres and shares none of that.
enum Resampling {
    /// 8 bits of pixel and 2 of headroom for overshoot leave 22 of an int32's bits to the fraction.
    private static let fractionBits = 32 - 8 - 2
    private static let one = 1 << fractionBits

    /// How one axis is resized: output pixel `i` is the sum of `counts[i]` input pixels from `starts[i]` on, times weights.
    struct Taps {
        var starts: [Int]
        var counts: [Int]
        var weights: [Int]
        /// Weights that are kept for each output pixel.
        var width: Int
    }

    /// The picture at another size, of which `crop` is cut out: what lies outside is not computed.
    static func resample(_ picture: Picture, to size: Size, crop: Crop, filter: Preprocessing.Interpolation) -> Picture {
        let across = taps(picture.size.width, size.width, crop.left, crop.size.width, filter)
        let down = taps(picture.size.height, size.height, crop.top, crop.size.height, filter)
        return vertical(horizontal(picture, across, down), down)
    }

    static func taps(
        _ input: Int, _ output: Int, _ first: Int, _ count: Int, _ filter: Preprocessing.Interpolation
    ) -> Taps {
        if input == output { return copies(Array(first..<first + count)) }
        switch filter {
        case .nearest:
            return copies(Array(nearest(input, output)[first..<first + count]))
        case .bilinear:
            return weights(input, output, first, count, support: 1) { max(0, 1 - abs($0)) }
        case .bicubic:
            return weights(input, output, first, count, support: 2) { keys(abs($0)) }
        case .lanczos:
            return weights(input, output, first, count, support: 3) { $0 >= -3 && $0 < 3 ? sinc($0) * sinc($0 / 3) : 0 }
        }
    }

    private static func copies(_ starts: [Int]) -> Taps {
        let count = starts.count
        return Taps(starts: starts, counts: [Int](repeating: 1, count: count), weights: [Int](repeating: one, count: count), width: 1)
    }

    /// The source index of each output index. The position is summed up, not multiplied: the rounding of that sum
    /// decides some pixels, and Pillow's is a sum.
    private static func nearest(_ input: Int, _ output: Int) -> [Int] {
        let step = Double(input) / Double(output)
        var position = step * 0.5
        return (0..<output).map { _ in
            defer { position += step }
            return min(Int(position), input - 1)
        }
    }

    private static func weights(
        _ input: Int, _ output: Int, _ first: Int, _ count: Int, support: Double, weight: (Double) -> Double
    ) -> Taps {
        let scale = Double(input) / Double(output)
        let stretch = max(scale, 1)
        let reach = support * stretch
        let width = Int(reach.rounded(.up)) * 2 + 1
        var taps = Taps(starts: [], counts: [], weights: [Int](repeating: 0, count: count * width), width: width)
        for index in 0..<count {
            let centre = (Double(first + index) + 0.5) * scale
            let start = max(0, Int(centre - reach + 0.5))
            let end = min(input, Int(centre + reach + 0.5))
            let row = (start..<end).map { weight((Double($0) - centre + 0.5) * (1 / stretch)) }
            let sum = row.reduce(0, +)
            taps.starts.append(start)
            taps.counts.append(end - start)
            for (tap, value) in row.enumerated() {
                let exact = value / (sum == 0 ? 1 : sum) * Double(one)
                taps.weights[index * width + tap] = Int(exact < 0 ? exact - 0.5 : exact + 0.5)
            }
        }
        return taps
    }

    /// Keys' cubic convolution (1981), a = -0.5, of a distance that is not negative.
    private static func keys(_ x: Double) -> Double {
        let a = -0.5
        if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
        if x < 2 { return (((x - 5) * x + 8) * x - 4) * a }
        return 0
    }

    private static func sinc(_ x: Double) -> Double {
        x == 0 ? 1 : sin(x * .pi) / (x * .pi)
    }

    /// The rows that the vertical pass will read, at the crop's width; the others stay zero.
    private static func horizontal(_ picture: Picture, _ across: Taps, _ down: Taps) -> Picture {
        let width = across.starts.count
        var rgb = [UInt8](repeating: 0, count: picture.size.height * width * 3)
        let rows = (down.starts.first ?? 0)..<(down.starts.last ?? 0) + (down.counts.last ?? 0)
        picture.rgb.withUnsafeBufferPointer { source in
            rgb.withUnsafeMutableBufferPointer { made in
                for y in rows {
                    for x in 0..<width {
                        let from = (y * picture.size.width + across.starts[x]) * 3
                        sum(source, from: from, stride: 3, across, x, into: made, at: (y * width + x) * 3)
                    }
                }
            }
        }
        return Picture(size: Size(height: picture.size.height, width: width), rgb: rgb)
    }

    private static func vertical(_ rows: Picture, _ down: Taps) -> Picture {
        let (height, width) = (down.starts.count, rows.size.width)
        var rgb = [UInt8](repeating: 0, count: height * width * 3)
        rows.rgb.withUnsafeBufferPointer { source in
            rgb.withUnsafeMutableBufferPointer { made in
                for y in 0..<height {
                    for x in 0..<width {
                        let from = (down.starts[y] * width + x) * 3
                        sum(source, from: from, stride: width * 3, down, y, into: made, at: (y * width + x) * 3)
                    }
                }
            }
        }
        return Picture(size: Size(height: height, width: width), rgb: rgb)
    }

    /// One output pixel: three weighted sums over source pixels that are `stride` bytes apart.
    private static func sum(
        _ source: UnsafeBufferPointer<UInt8>, from: Int, stride: Int, _ taps: Taps, _ row: Int,
        into made: UnsafeMutableBufferPointer<UInt8>, at: Int
    ) {
        var (red, green, blue) = (one / 2, one / 2, one / 2)
        var pixel = from
        for tap in row * taps.width..<row * taps.width + taps.counts[row] {
            let weight = taps.weights[tap]
            red += Int(source[pixel]) * weight
            green += Int(source[pixel + 1]) * weight
            blue += Int(source[pixel + 2]) * weight
            pixel += stride
        }
        made[at] = byte(red)
        made[at + 1] = byte(green)
        made[at + 2] = byte(blue)
    }

    private static func byte(_ fixed: Int) -> UInt8 {
        UInt8(clamping: fixed >> fractionBits)
    }
}
