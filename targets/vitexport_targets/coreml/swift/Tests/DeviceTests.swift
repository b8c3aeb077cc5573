#if canImport(CoreML)
import CoreML
import XCTest
import __MODULE__
import __MODULE__Exam

/// Parity with PyTorch and latency on this device.
final class DeviceTests: XCTestCase {
    private var model: __MODULE__Model?

    override func setUp() async throws {
        model = try await __MODULE__Model.load()
    }

    /// Every precision at every size on every set of compute units, written as what `vitexport report DIR --add FILE`
    /// takes. Run it in a Release build: Debug's arithmetic is slow, though Core ML's is not.
    func testEveryVariantAnswersAsPyTorchDoesAndIsTimed() async throws {
        let report = try await Exam().run { print("vitexport: \($0)") }
        try keep(report)
        for cell in report.cells where cell.parity.verdict == .failed {
            XCTFail("\(cell.precision) at \(cell.size) on \(cell.provider): \(cell.parity.reason)")
        }
        XCTAssertTrue(report.cells.contains { $0.parity.verdict == .passed }, "Nothing could be run.")
    }

    /// Xcode's own figures for the variant that an app loads by default, beside those of the report.
    func testLatencyAndMemoryOfOneInference() throws {
        let rung = try XCTUnwrap(ExamResources.manifest().rungs.first)
        let golden = try XCTUnwrap(ExamResources.golden(rung).first)
        let model = try XCTUnwrap(model)
        let input = try model.input(pixelValues: golden.input)
        _ = try model.answer(to: input)
        let options = XCTMeasureOptions()
        options.iterationCount = 30
        var failure: (any Error)?
        measure(metrics: [XCTClockMetric(), XCTMemoryMetric()], options: options) {
            do { _ = try model.answer(to: input) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    private func keep(_ report: DeviceReport) throws {
        let json = try report.json()
        let attachment = XCTAttachment(data: json, uniformTypeIdentifier: "public.json")
        attachment.name = "device-report.json"
        attachment.lifetime = .keepAlways
        add(attachment)
        #if os(macOS)
        let folder = FileManager.default.temporaryDirectory
        #else
        // Of the app: Xcode's Devices window downloads it.
        let folder = FileManager.default.urls(for: .documentDirectory, in: .userDomainMask)[0]
        #endif
        let file = folder.appendingPathComponent("__MODULE__-device-report.json")
        try json.write(to: file, options: .atomic)
        print("vitexport: written to \(file.path). Next: vitexport report DIR --add \(file.lastPathComponent)")
    }
}
#endif
