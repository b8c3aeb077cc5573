import Foundation
import __MODULE__

/// What an exam needs of `manifest.json`.
public struct Manifest: Decodable, Sendable {
    public let model: String
    public let rungs: [Rung]

    public struct Rung: Decodable, Sendable {
        public let preprocessing: Sized
        public let outputs: [OutputSpec]
        public let variants: [Variant]
        public let golden: [GoldenFiles]

        public var size: Size { preprocessing.size }
    }

    public struct Sized: Decodable, Sendable {
        public let size: Size
    }

    /// What is stored, and how far from PyTorch's its answers may be.
    public struct Variant: Decodable, Sendable {
        public let precision: String
        public let metric: Metric
        public let tolerance: Double
    }

    public struct GoldenFiles: Decodable, Sendable {
        public let name: String
        public let photo: String
        public let input: String
        public let outputs: [String: String]
    }
}

public enum Metric: String, Codable, Sendable { case drift, noise, loss }

public struct OutputSpec: Decodable, Sendable {
    public enum Meaning: String, Decodable, Sendable { case logits, features, mask, segmentation }
    public enum Scores: String, Decodable, Sendable { case logits, probabilities }

    public let name: String
    public let meaning: Meaning
    public let shape: [Int]
    public let scores: Scores?
    /// The channel that tells of people, where one does.
    public let person: Int?

    public init(name: String, meaning: Meaning, shape: [Int], scores: Scores?, person: Int?) {
        self.name = name
        self.meaning = meaning
        self.shape = shape
        self.scores = scores
        self.person = person
    }
}

/// A photo, the tensor that PyTorch made of it, and what PyTorch answered.
public struct GoldenCase: Sendable {
    public let name: String
    /// A PNG.
    public let photo: URL
    public let input: Tensor
    public let outputs: [String: Tensor]

    /// Reads the cases of one size; `bundle` is the folder that the manifest's paths are relative to.
    public static func read(_ rung: Manifest.Rung, in bundle: URL) throws -> [GoldenCase] {
        let shapes = Dictionary(uniqueKeysWithValues: rung.outputs.map { ($0.name, $0.shape) })
        return try rung.golden.map { files in
            let outputs = try files.outputs.map { name, path in
                (name, try tensor(bundle.appendingPathComponent(path), shapes[name] ?? []))
            }
            return GoldenCase(
                name: files.name,
                photo: bundle.appendingPathComponent(files.photo),
                input: try tensor(bundle.appendingPathComponent(files.input), [1, 3, rung.size.height, rung.size.width]),
                outputs: Dictionary(uniqueKeysWithValues: outputs)
            )
        }
    }

    /// Raw little-endian float32 in C order.
    private static func tensor(_ file: URL, _ shape: [Int]) throws -> Tensor {
        let data = try Data(contentsOf: file)
        let count = shape.reduce(1, *)
        guard data.count == count * 4 else { throw Failure.unreadable(file.lastPathComponent) }
        let values = data.withUnsafeBytes { bytes in
            (0..<count).map { Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self))) }
        }
        return Tensor(shape: shape, values: values)
    }
}
