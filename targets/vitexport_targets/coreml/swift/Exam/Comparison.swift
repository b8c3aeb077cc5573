import Foundation
import __MODULE__

/// How far an answer is from PyTorch's: the metrics of vitexport's `parity.py`, in double precision. NaN propagates.
public enum Comparison {
    /// What is given for bit-identical outputs, where the true value is infinite.
    public static let ceilingDb = 200.0

    /// Least IoU between the masks of PyTorch and of an artifact at the 0.5 threshold.
    public static func leastOverlap(_ metric: Metric) -> Double { metric == .loss ? 0.95 : 0.99 }

    /// max|a-b| / max|b|; of a mask, whose range is 0...1, max|a-b|.
    public static func drift(_ a: [Float], _ b: [Float], _ meaning: OutputSpec.Meaning) -> Double {
        let scale = meaning == .mask ? 1 : largest(b.lazy.map { Double($0) })
        return largest(zip(a, b).lazy.map { Double($0) - Double($1) }) / (scale == 0 ? 1 : scale)
    }

    /// -20 log10(rms(a-b) / rms(b)); of a mask, -20 log10(rms(a-b)). At most `ceilingDb`.
    public static func snrDb(_ a: [Float], _ b: [Float], _ meaning: OutputSpec.Meaning) -> Double {
        let count = Double(a.count)
        let noise = zip(a, b).reduce(0.0) { $0 + pow(Double($1.0) - Double($1.1), 2) } / count
        let signal = meaning == .mask ? 1 : b.reduce(0.0) { $0 + pow(Double($1), 2) } / count
        if noise == 0 { return ceilingDb }
        let db = 10 * log10(signal / noise)
        return db > ceilingDb ? ceilingDb : db
    }

    /// rms(a-b) / rms(b) of an SNR in dB.
    public static func noise(_ snrDb: Double) -> Double { pow(10, -snrDb / 20) }

    /// Cosine of the angle between the flattened tensors; 1 where both are zero.
    public static func cosine(_ a: [Float], _ b: [Float]) -> Double {
        let dot = zip(a, b).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
        let squares = { (values: [Float]) in values.reduce(0.0) { $0 + Double($1) * Double($1) } }
        let norms = squares(a).squareRoot() * squares(b).squareRoot()
        if norms == 0 { return a == b ? 1 : 0 }
        return dot / norms
    }

    /// Of one picture: 1 or 0 for the same top-1, of one class alone for the same side of a half; IoU of masks, mean IoU of the classes; nil for features.
    public static func agreement(_ a: Tensor, _ b: Tensor, _ output: OutputSpec) -> Double? {
        switch output.meaning {
        case .logits where a.shape[1] == 1:
            let half: Float = output.scores == .probabilities ? 0.5 : 0
            return (a.values[0] > half) == (b.values[0] > half) ? 1 : 0
        case .logits: return best(a) == best(b) ? 1 : 0
        case .mask: return Overlap(over(a.values), over(b.values)).iou
        case .features: return nil
        case .segmentation:
            let (chosen, true_) = (best(a), best(b))
            let classes = Set(chosen).union(true_)
            let overlaps = classes.map { index in Overlap(chosen.map { $0 == index }, true_.map { $0 == index }).iou }
            return overlaps.reduce(0, +) / Double(overlaps.count)
        }
    }

    /// The probability that a pixel shows a person, as the output's spec says that it is to be read; nil where no channel
    /// tells of people.
    public static func personMask(_ scores: Tensor, _ output: OutputSpec) -> [Float]? {
        guard let person = output.person, scores.shape.count == 4 else { return nil }
        let (channels, area) = (scores.shape[1], scores.shape[2] * scores.shape[3])
        let own = Array(scores.values[person * area..<(person + 1) * area])
        if output.scores == .probabilities { return own }
        if channels == 1 { return own.map { 1 / (1 + exp(-$0)) } }
        return (0..<area).map { pixel in
            let column = (0..<channels).map { scores.values[$0 * area + pixel] }
            let top = column.max() ?? 0
            return exp(own[pixel] - top) / column.reduce(Float(0)) { $0 + exp($1 - top) }
        }
    }

    /// Where a mask says that there is something.
    public static func over(_ mask: [Float]) -> [Bool] { mask.map { $0 > 0.5 } }

    /// The largest |value|; NaN where there is one.
    private static func largest(_ values: some Sequence<Double>) -> Double {
        var most = -Double.infinity
        for value in values {
            if value.isNaN { return .nan }
            most = max(most, abs(value))
        }
        return most < 0 ? .nan : most
    }

    /// The class of the largest score along the second dimension, the first of equals.
    private static func best(_ scores: Tensor) -> [Int] {
        let (classes, area) = (scores.shape[1], scores.shape.dropFirst(2).reduce(1, *))
        return (0..<area).map { pixel in
            (1..<max(classes, 1)).reduce(0) { scores.values[$1 * area + pixel] > scores.values[$0 * area + pixel] ? $1 : $0 }
        }
    }
}

/// Intersection and union of two masks, in pixels.
public struct Overlap: Sendable {
    public let shared: Int
    public let covered: Int

    public init(_ a: [Bool], _ b: [Bool]) {
        shared = zip(a, b).reduce(0) { $0 + ($1.0 && $1.1 ? 1 : 0) }
        covered = zip(a, b).reduce(0) { $0 + ($1.0 || $1.1 ? 1 : 0) }
    }

    private init(shared: Int, covered: Int) {
        self.shared = shared
        self.covered = covered
    }

    /// Two empty masks agree perfectly: drift judges those.
    public var iou: Double { covered == 0 ? 1 : Double(shared) / Double(covered) }

    /// Of all pictures at once; nil where there is none.
    public static func iou(_ overlaps: [Overlap]) -> Double? {
        if overlaps.isEmpty { return nil }
        let (shared, covered) = (overlaps.map(\.shared).reduce(0, +), overlaps.map(\.covered).reduce(0, +))
        return Overlap(shared: shared, covered: covered).iou
    }
}
