#if canImport(CoreML)
import ImageIO
import XCTest
import __MODULE__
import __MODULE__Exam

/// This wrapper's way from a photo to the network, against PyTorch's.
final class PreprocessingTests: XCTestCase {
    /// The bytes are the same integers, and dividing by the deviation may round differently in the last place. One step
    /// of a byte is 4e-3 before normalisation, so anything above this is a different pixel.
    private let tolerance: Float = 1e-5

    func testAGoldenPhotoBecomesItsGoldenInput() throws {
        for (rung, size) in zip(try ExamResources.manifest().rungs, InputSize.allCases) {
            for one in try ExamResources.golden(rung) {
                let made = size.preprocessing.tensor(try Picture(image(at: one.photo)))
                XCTAssertEqual(made.shape, one.input.shape)
                XCTAssertLessThanOrEqual(largestDifference(made, one.input), tolerance, one.name)
            }
        }
    }

    private func image(at url: URL) throws -> CGImage {
        let source = try XCTUnwrap(CGImageSourceCreateWithURL(url as CFURL, nil))
        return try XCTUnwrap(CGImageSourceCreateImageAtIndex(source, 0, nil))
    }
}
#endif
