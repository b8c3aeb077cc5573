import XCTest
import __MODULE__
import __MODULE__Exam

/// The exam itself, on any machine: its files are whole, and its judge tells right from wrong.
final class GoldenTests: XCTestCase {
    func testEverySizeAndPrecisionOfTheManifestHasItsNameHere() throws {
        let manifest = try ExamResources.manifest()
        XCTAssertEqual(manifest.rungs.map(\.size), InputSize.allCases.map(\.preprocessing.size))
        for rung in manifest.rungs {
            XCTAssertEqual(rung.variants.map(\.precision), Precision.allCases.map(\.rawValue))
        }
    }

    func testPyTorchsOwnAnswersPassAndShiftedOnesDoNot() throws {
        for rung in try ExamResources.manifest().rungs {
            let golden = try ExamResources.golden(rung)
            for variant in rung.variants {
                var right = Judge(outputs: rung.outputs, variant: variant)
                var wrong = right
                for one in golden {
                    right.compare(one.outputs, to: one)
                    wrong.compare(one.outputs.mapValues(shifted), to: one)
                }
                let parity = right.parity(runtime: "PyTorch")
                XCTAssertEqual(parity.verdict, .passed, parity.reason)
                XCTAssertEqual(parity.snrDb, Comparison.ceilingDb)
                XCTAssertEqual(parity.images, golden.count)
                XCTAssertEqual(wrong.parity(runtime: "PyTorch").verdict, .failed)
            }
        }
    }

    func testAnAnswerThatIsNoNumberFails() throws {
        let rung = try XCTUnwrap(ExamResources.manifest().rungs.first)
        var judge = Judge(outputs: rung.outputs, variant: try XCTUnwrap(rung.variants.first))
        for one in try ExamResources.golden(rung) {
            judge.compare(one.outputs.mapValues(withNaN), to: one)
        }
        let parity = judge.parity(runtime: "PyTorch")
        XCTAssertEqual(parity.verdict, .failed)
        XCTAssertNil(parity.drift)
    }

    func testThePictureOfAGoldenInputBecomesThatInputAgain() throws {
        for (rung, size) in zip(try ExamResources.manifest().rungs, InputSize.allCases) {
            for one in try ExamResources.golden(rung) {
                let picture = try XCTUnwrap(size.preprocessing.picture(of: one.input))
                let again = size.preprocessing.normalised(picture)
                XCTAssertLessThanOrEqual(largestDifference(again, one.input), 1e-5)
            }
        }
    }

    private func shifted(_ tensor: Tensor) -> Tensor {
        Tensor(shape: tensor.shape, values: tensor.values.map { 3 - 2 * $0 })
    }

    private func withNaN(_ tensor: Tensor) -> Tensor {
        Tensor(shape: tensor.shape, values: [.nan] + tensor.values.dropFirst())
    }
}

func largestDifference(_ a: Tensor, _ b: Tensor) -> Float {
    zip(a.values, b.values).map { abs($0 - $1) }.max() ?? .infinity
}
