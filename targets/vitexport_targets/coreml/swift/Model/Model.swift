#if canImport(CoreML)
import CoreGraphics
import CoreML
import CoreVideo
import Foundation

/// One variant of the network, loaded: pictures in, `Outputs` by name out.
///
///     let model = try await __MODULE__Model.load()
///     let outputs = try model.predict(image)
public final class __MODULE__Model {
    public let precision: Precision
    public let inputSize: InputSize
    public let units: MLComputeUnits
    /// Core ML's own, for what this class does not do.
    public let model: MLModel
    /// The compiled model on the disk.
    public let compiled: URL

    private init(precision: Precision, inputSize: InputSize, units: MLComputeUnits, model: MLModel, compiled: URL) {
        self.precision = precision
        self.inputSize = inputSize
        self.units = units
        self.model = model
        self.compiled = compiled
    }

    /// Loads a variant, and compiles it first where Xcode has not: once in a process, which takes seconds.
    public static func load(
        _ precision: Precision = .preferred, size: InputSize = .preferred, units: MLComputeUnits = .all
    ) async throws -> __MODULE__Model {
        let compiled = try await Compiler.shared.compiled(Stored.package(precision, size))
        return try await load(precision, size: size, units: units, compiled: compiled)
    }

    /// As above, of a model that `compile` has compiled before.
    public static func load(
        _ precision: Precision, size: InputSize, units: MLComputeUnits, compiled: URL
    ) async throws -> __MODULE__Model {
        let configuration = configuration(size: size, units: units)
        let model = try await MLModel.load(contentsOf: compiled, configuration: configuration)
        return __MODULE__Model(precision: precision, inputSize: size, units: units, model: model, compiled: compiled)
    }

    public static func compile(_ precision: Precision, size: InputSize) async throws -> URL {
        try await Compiler.shared.compiled(Stored.package(precision, size))
    }

    /// What Core ML is told: the compute units, and the size's function where one package has several.
    public static func configuration(size: InputSize, units: MLComputeUnits) -> MLModelConfiguration {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units
        if #available(iOS 18.0, macOS 15.0, *), let function = Stored.function(size) {
            configuration.functionName = function
        }
        return configuration
    }

    /// Answers an upright picture: fitted and normalised as the network was trained. Colours are taken as they are,
    /// without colour management; what is transparent is black.
    public func predict(_ image: CGImage) throws -> Outputs {
        try predict(Picture(image))
    }

    /// Answers an upright frame of a camera, in any pixel format that Video Toolbox can turn into an image.
    public func predict(_ frame: CVPixelBuffer) throws -> Outputs {
        try predict(Picture(frame))
    }

    public func predict(_ photo: Picture) throws -> Outputs {
        try answer(to: input(fitted: inputSize.preprocessing.fitted(photo)))
    }

    /// Answers what has been preprocessed: a normalised tensor (1, 3, height, width).
    public func predict(pixelValues: Tensor) throws -> Outputs {
        try answer(to: input(pixelValues: pixelValues))
    }

    /// What Core ML takes for a normalised tensor: itself, or the picture that it was made of.
    public func input(pixelValues: Tensor) throws -> MLFeatureProvider {
        guard Stored.takesPicture else { return try provider(MLFeatureValue(multiArray: pixelValues.multiArray())) }
        guard let picture = inputSize.preprocessing.picture(of: pixelValues) else {
            throw Failure.unreadable("A tensor that was made of no picture")
        }
        return try input(fitted: picture)
    }

    /// Core ML's part of an answer alone: what is timed.
    public func answer(to input: MLFeatureProvider) throws -> Outputs {
        try Outputs(from: Features(provider: model.prediction(from: input)))
    }

    private func input(fitted picture: Picture) throws -> MLFeatureProvider {
        if Stored.takesPicture { return try provider(MLFeatureValue(pixelBuffer: picture.pixelBuffer())) }
        return try provider(MLFeatureValue(multiArray: inputSize.preprocessing.normalised(picture).multiArray()))
    }

    private func provider(_ value: MLFeatureValue) throws -> MLFeatureProvider {
        try MLDictionaryFeatureProvider(dictionary: [Stored.inputName: value])
    }
}

/// Compiles each package once in a process.
private actor Compiler {
    static let shared = Compiler()
    private var known: [String: URL] = [:]

    func compiled(_ name: String) async throws -> URL {
        if let url = known[name] { return url }
        let stored = try Resources.model(name)
        let url = stored.pathExtension == "mlmodelc" ? stored : try await MLModel.compileModel(at: stored)
        known[name] = url
        return url
    }
}

private struct Features: Answer {
    let provider: MLFeatureProvider

    func tensor(_ name: String) throws -> Tensor {
        guard let array = provider.featureValue(for: name)?.multiArrayValue else { throw Failure.noOutput(name) }
        // Rows may be padded, and the Neural Engine may answer in float16: this reads either.
        return Tensor(shape: array.shape.map(\.intValue), values: MLShapedArray<Float>(converting: array).scalars)
    }

    func text(_ name: String) throws -> String {
        guard let value = provider.featureValue(for: name), value.type == .string else { throw Failure.noOutput(name) }
        return value.stringValue
    }

    func probabilities(_ name: String) throws -> [String: Double] {
        guard let value = provider.featureValue(for: name), value.type == .dictionary else {
            throw Failure.noOutput(name)
        }
        var found: [String: Double] = [:]
        for (label, probability) in value.dictionaryValue {
            if let label = label as? String { found[label] = probability.doubleValue }
        }
        return found
    }
}

extension Tensor {
    func multiArray() -> MLMultiArray {
        MLMultiArray(MLShapedArray<Float>(scalars: values, shape: shape))
    }
}
#endif
