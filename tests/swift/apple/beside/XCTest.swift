// Compiled into the tests' module, for what Xcode's XCTest has and this one has not: see CoreVideo.swift.
import Foundation
import XCTest

protocol XCTMetric {}
final class XCTClockMetric: XCTMetric {}
final class XCTMemoryMetric: XCTMetric {}
final class XCTMeasureOptions { var iterationCount = 5 }
final class XCTAttachment {
    enum Lifetime { case keepAlways, deleteOnSuccess }
    init(data: Data, uniformTypeIdentifier: String) {}
    var name: String?
    var lifetime = Lifetime.deleteOnSuccess
}
extension XCTestCase {
    func measure(metrics: [any XCTMetric], options: XCTMeasureOptions, block: () -> Void) {}
    func add(_ attachment: XCTAttachment) {}
}
