#if canImport(CoreML)
import CoreML
import CryptoKit
import Foundation
import __MODULE__

/// Every variant on every set of compute units of this device: parity on the golden photos, then latency.
///
/// The protocol is vitexport's own: load, cold (the first inference), then steady runs until there are 30 of them or they
/// have taken 10 seconds; the runs that parity made count. Raw times are kept.
public struct Exam {
    public var precisions = Precision.allCases
    public var sizes = InputSize.allCases
    public var units: [ComputeUnits] = ComputeUnits.allCases
    public var steadyRuns = 30
    public var budgetSeconds = 10.0

    /// Core ML's compute units by coremltools' names, which are vitexport's names of the providers.
    public enum ComputeUnits: String, CaseIterable, Sendable {
        case cpuOnly = "cpu_only"
        case cpuAndGPU = "cpu_and_gpu"
        case cpuAndNeuralEngine = "cpu_and_ne"
        case all

        public var coreMl: MLComputeUnits {
            switch self {
            case .cpuOnly: .cpuOnly
            case .cpuAndGPU: .cpuAndGPU
            case .cpuAndNeuralEngine: .cpuAndNeuralEngine
            case .all: .all
            }
        }
    }

    public init() {}

    /// Runs it all. `progress` is told what comes next.
    public func run(progress: (String) -> Void = { _ in }) async throws -> DeviceReport {
        let manifest = try ExamResources.manifest()
        var cells: [DeviceReport.Cell] = []
        for size in sizes {
            guard let rung = manifest.rungs.first(where: { $0.size == size.preprocessing.size }) else { continue }
            let golden = try ExamResources.golden(rung)
            for precision in precisions {
                guard let variant = rung.variants.first(where: { $0.precision == precision.rawValue }) else { continue }
                for unit in units {
                    progress("\(precision.rawValue) at \(size.rawValue) on \(unit.rawValue)")
                    cells.append(await cell(precision, size, unit, rung: rung, variant: variant, golden: golden))
                }
            }
        }
        let digest = SHA256.hash(data: try Resources.manifest()).map { String(format: "%02x", $0) }.joined()
        return DeviceReport(manifestSha256: digest, device: await ThisDevice.described(), cells: cells)
    }

    /// One variant on one set of compute units. What cannot be loaded or run is `not run`, with Core ML's own words.
    private func cell(
        _ precision: Precision, _ size: InputSize, _ unit: ComputeUnits, rung: Manifest.Rung, variant: Manifest.Variant,
        golden: [GoldenCase]
    ) async -> DeviceReport.Cell {
        do {
            let compiled = try await __MODULE__Model.compile(precision, size: size)
            let clock = ContinuousClock()
            let start = clock.now
            let model = try await __MODULE__Model.load(precision, size: size, units: unit.coreMl, compiled: compiled)
            let loadMs = (clock.now - start).milliseconds
            let (parity, latency) = try measure(model, loadMs: loadMs, rung: rung, variant: variant, golden: golden)
            let placement = try await placement(of: model, unit)
            return DeviceReport.Cell(
                precision: precision.rawValue, provider: unit.rawValue, size: rung.size, parity: parity,
                latency: latency, placement: placement)
        } catch {
            let reason = oneLine(error.localizedDescription)
            let unrun = DeviceReport.Parity(
                verdict: .notRun, metric: variant.metric, images: 0, reason: reason, runtime: "Core ML")
            return DeviceReport.Cell(
                precision: precision.rawValue, provider: unit.rawValue, size: rung.size, parity: unrun,
                latency: .notRun(reason), placement: nil)
        }
    }

    private func measure(
        _ model: __MODULE__Model, loadMs: Double, rung: Manifest.Rung, variant: Manifest.Variant, golden: [GoldenCase]
    ) throws -> (DeviceReport.Parity, DeviceReport.Measurement) {
        let before = ThisDevice.thermalState
        var judge = Judge(outputs: rung.outputs, variant: variant)
        var times: [Double] = []
        for one in golden {
            let input = try model.input(pixelValues: one.input)
            let (outputs, ms) = try timed(model, input)
            times.append(ms)
            judge.compare(outputs.byName, to: one)
        }
        let parity = judge.parity(runtime: "Core ML")
        guard parity.verdict == .passed, let first = golden.first, !times.isEmpty else {
            return (parity, .notRun("parity failed"))
        }
        let coldMs = times.removeFirst()
        let input = try model.input(pixelValues: first.input)
        while times.count < steadyRuns && times.reduce(0, +) < budgetSeconds * 1000 {
            times.append(try timed(model, input).1)
        }
        let latency = DeviceReport.Measurement(
            verdict: .passed, loadMs: loadMs, coldMs: coldMs, timesMs: times,
            peakMemoryBytes: ThisDevice.peakMemoryBytes, warning: ThisDevice.warning(before: before))
        return (parity, latency)
    }

    /// From the call to the outputs' arrival in memory; the picture is ready before.
    private func timed(_ model: __MODULE__Model, _ input: MLFeatureProvider) throws -> (Outputs, Double) {
        let clock = ContinuousClock()
        let start = clock.now
        let outputs = try model.answer(to: input)
        return (outputs, (clock.now - start).milliseconds)
    }

    /// What Core ML plans to run where; nil before iOS 17.4 and macOS 14.4, which do not tell.
    private func placement(of model: __MODULE__Model, _ unit: ComputeUnits) async throws -> DeviceReport.Placement? {
        guard #available(iOS 17.4, macOS 14.4, *) else { return nil }
        let configuration = __MODULE__Model.configuration(size: model.inputSize, units: unit.coreMl)
        let plan = try await MLComputePlan.load(contentsOf: model.compiled, configuration: configuration)
        guard case .program(let program) = plan.modelStructure else { return nil }
        let function = program.functions[Stored.function(model.inputSize) ?? "main"] ?? program.functions.first?.value
        guard let function else { return nil }
        var nodes: [String: Int] = [:]
        var fallback: [String] = []
        for operation in function.block.operations {
            guard let usage = plan.deviceUsage(for: operation) else { continue }  // constants are placed nowhere
            let device = name(of: usage.preferred)
            nodes[device, default: 0] += 1
            if device == "CPU" && unit != .cpuOnly {
                fallback.append("\(operation.operatorName) (\(operation.outputs.first?.name ?? ""))")
            }
        }
        return DeviceReport.Placement(nodes: nodes, fallback: fallback)
    }

    private func name(of device: MLComputeDevice) -> String {
        switch device {
        case .cpu: "CPU"
        case .gpu: "GPU"
        case .neuralEngine: "Neural Engine"
        @unknown default: "unknown"
        }
    }

    /// Of an error's words, what a report takes: no line breaks, and no more than it needs.
    private func oneLine(_ text: String) -> String {
        String(text.split(whereSeparator: \.isNewline).joined(separator: " ").prefix(300))
    }
}

extension Duration {
    /// As a number, which the raw times are.
    fileprivate var milliseconds: Double {
        Double(components.seconds) * 1000 + Double(components.attoseconds) / 1e15
    }
}
#endif
