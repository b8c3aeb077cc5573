import Foundation
import __MODULE__

/// A device's verdict on one variant, by the manifest's tolerance. vitexport judges the figures again.
public struct Judge {
    private let outputs: [OutputSpec]
    private let variant: Manifest.Variant
    private var compared: [Compared] = []
    private var pictures = 0
    private var malformed: String?

    /// One picture, one output.
    private struct Compared {
        let picture: String
        let output: String
        let drift: Double
        let snrDb: Double
        let cosine: Double
        let agreement: Double?
        let mask: Overlap?
        let people: Overlap?
    }

    public init(outputs: [OutputSpec], variant: Manifest.Variant) {
        self.outputs = outputs
        self.variant = variant
    }

    /// Takes the answer to one golden case.
    public mutating func compare(_ answers: [String: Tensor], to golden: GoldenCase) {
        pictures += 1
        for output in outputs {
            guard let answer = answers[output.name], let truth = golden.outputs[output.name] else {
                malformed = malformed ?? "\(golden.name): output '\(output.name)' is missing."
                continue
            }
            guard answer.shape == truth.shape else {
                let shapes = "has shape \(answer.shape), PyTorch's has \(truth.shape)"
                malformed = malformed ?? "\(golden.name): output '\(output.name)' \(shapes)."
                continue
            }
            compared.append(Judge.compared(answer, truth, output, picture: golden.name))
        }
    }

    private static func compared(_ a: Tensor, _ b: Tensor, _ output: OutputSpec, picture: String) -> Compared {
        let masks = output.meaning == .mask ? Overlap(Comparison.over(a.values), Comparison.over(b.values)) : nil
        var people: Overlap?
        if let theirs = Comparison.personMask(a, output), let ours = Comparison.personMask(b, output) {
            people = Overlap(Comparison.over(theirs), Comparison.over(ours))
        }
        return Compared(
            picture: picture,
            output: output.name,
            drift: Comparison.drift(a.values, b.values, output.meaning),
            snrDb: Comparison.snrDb(a.values, b.values, output.meaning),
            cosine: Comparison.cosine(a.values, b.values),
            agreement: Comparison.agreement(a, b, output),
            mask: masks,
            people: people
        )
    }

    public func parity(runtime: String) -> DeviceReport.Parity {
        let reason = malformed ?? fault() ?? ""
        let agreements = compared.compactMap(\.agreement)
        let mean = agreements.isEmpty ? nil : agreements.reduce(0, +) / Double(agreements.count)
        return DeviceReport.Parity(
            verdict: reason.isEmpty ? .passed : .failed,
            drift: finite(worst(compared.map(\.drift), by: >)),
            tolerance: variant.tolerance,
            metric: variant.metric,
            snrDb: finite(worst(compared.map(\.snrDb), by: <)),
            cosine: finite(worst(compared.map(\.cosine), by: <)),
            agreement: Overlap.iou(compared.compactMap(\.mask)) ?? mean,
            personIou: Overlap.iou(compared.compactMap(\.people)),
            images: pictures,
            reason: reason,
            runtime: runtime
        )
    }

    /// Why the answers do not pass; nil where they do.
    private func fault() -> String? {
        guard let one = compared.max(by: { rank($0) < rank($1) }) else {
            return "There is no golden case, so nothing was compared."
        }
        if !(off(one) <= variant.tolerance) {  // NaN compares false, and must fail
            let (found, most) = (shown(off(one)), shown(variant.tolerance))
            return "\(variant.metric) of output '\(one.output)' on \(one.picture) is \(found); at most \(most) passes."
        }
        let floor = Comparison.leastOverlap(variant.metric)
        let people = Overlap.iou(compared.compactMap(\.people))
        if variant.metric != .loss, let people, !(people > floor) {
            return "IoU with PyTorch's masks of people is \(shown(people)); more than \(floor) passes."
        }
        // Floats must agree on each picture. In fewer bits they need not where there is nobody.
        let masks = compared.compactMap(\.mask)
        let overlap = variant.metric == .loss ? Overlap.iou(masks) : masks.map(\.iou).min()
        if let overlap, !(overlap > floor) {
            return "mask IoU with PyTorch is \(shown(overlap)); more than \(floor) passes."
        }
        return nil
    }

    /// In the variant's metric.
    private func off(_ one: Compared) -> Double {
        variant.metric == .drift ? one.drift : Comparison.noise(one.snrDb)
    }

    /// By how far it is off, NaN farthest.
    private func rank(_ one: Compared) -> Double { off(one).isNaN ? .infinity : off(one) }

    private func worst(_ values: [Double], by worse: (Double, Double) -> Bool) -> Double {
        guard var found = values.first else { return .nan }
        for value in values {
            if value.isNaN { return .nan }
            if worse(value, found) { found = value }
        }
        return found
    }

    private func shown(_ value: Double) -> String { String(format: "%.3g", value) }

    /// JSON has no word for NaN and infinities; vitexport takes their absence for a failure.
    private func finite(_ value: Double) -> Double? { value.isFinite ? value : nil }
}
