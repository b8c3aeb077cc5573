// What the wrapper and the exam use of Core ML: see CoreVideo.swift. Declared to be type-checked against, and never run:
// hence `fatalError()` for every body.
import CoreVideo
import Foundation

public enum MLComputeUnits: Int { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }
public final class MLModelConfiguration {
    public init() {}
    public var computeUnits = MLComputeUnits.all
    public var functionName: String?
}
public final class MLMultiArray {
    public init<Scalar>(_ array: MLShapedArray<Scalar>) {}
    public var shape: [NSNumber] { fatalError() }
}
public struct MLShapedArray<Scalar> {
    public init(scalars: some Sequence<Scalar>, shape: [Int]) {}
    public init(converting array: MLMultiArray) {}
    public var scalars: [Scalar] { fatalError() }
}
public enum MLFeatureType: Int { case invalid, int64, double, string, image, multiArray, dictionary }
public final class MLFeatureValue {
    public init(multiArray: MLMultiArray) {}
    public init(pixelBuffer: CVPixelBuffer) {}
    public var type: MLFeatureType { fatalError() }
    public var multiArrayValue: MLMultiArray? { fatalError() }
    public var stringValue: String { fatalError() }
    public var dictionaryValue: [AnyHashable: NSNumber] { fatalError() }
}
public protocol MLFeatureProvider {
    func featureValue(for name: String) -> MLFeatureValue?
}
public final class MLDictionaryFeatureProvider: MLFeatureProvider {
    public init(dictionary: [String: Any]) throws {}
    public func featureValue(for name: String) -> MLFeatureValue? { fatalError() }
}
public final class MLModel {
    public static func compileModel(at url: URL) async throws -> URL { fatalError() }
    public static func load(contentsOf url: URL, configuration: MLModelConfiguration) async throws -> MLModel { fatalError() }
    public func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider { fatalError() }
}
public enum MLComputeDevice { case cpu(Int), gpu(Int), neuralEngine(Int) }
public enum MLModelStructure {
    case program(Program), unsupported
    public struct Program {
        public var functions: [String: Function] { fatalError() }
        public struct Function { public var block: Block { fatalError() } }
        public struct Block { public var operations: [Operation] { fatalError() } }
        public struct NamedValueType { public var name: String { fatalError() } }
        public struct Operation {
            public var operatorName: String { fatalError() }
            public var outputs: [NamedValueType] { fatalError() }
        }
    }
}
public final class MLComputePlan {
    public struct DeviceUsage { public var preferred: MLComputeDevice { fatalError() } }
    public var modelStructure: MLModelStructure { fatalError() }
    public static func load(contentsOf url: URL, configuration: MLModelConfiguration) async throws -> MLComputePlan { fatalError() }
    public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? { fatalError() }
}
