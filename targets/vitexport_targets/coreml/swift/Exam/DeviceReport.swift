import Foundation
import __MODULE__

/// What `vitexport report DIR --add FILE` takes back: its `DeviceReport`, as JSON.
public struct DeviceReport: Codable, Sendable {
    public var schemaVersion = 1
    public var manifestSha256: String
    public var device: Device
    public var cells: [Cell]

    public enum Verdict: String, Codable, Sendable {
        case passed
        case failed
        case notRun = "not run"
    }

    public struct Device: Codable, Sendable {
        /// The model's identifier, such as `iPhone15,2`.
        public var name: String
        public var runtime: String
        public var provider: String
        /// Whether something stands in for the device, as a simulator does.
        public var software: Bool
        public var facts: [String: String]
        /// What a user's device has and this one has not; empty where it is one.
        public var needs: String
    }

    /// One variant at one size on one set of compute units.
    public struct Cell: Codable, Sendable {
        public var precision: String
        public var provider: String
        public var size: Size
        public var parity: Parity
        public var latency: Measurement
        public var placement: Placement?
    }

    public struct Parity: Codable, Sendable {
        public var verdict: Verdict
        public var drift: Double?
        public var tolerance: Double?
        public var metric: Metric
        public var snrDb: Double?
        public var cosine: Double?
        public var agreement: Double?
        public var personIou: Double?
        public var images: Int
        public var reason: String
        public var runtime: String

        enum CodingKeys: String, CodingKey {
            case verdict, drift, tolerance, metric, cosine, agreement, images, reason, runtime
            case snrDb = "snr_db"
            case personIou = "person_iou"
        }
    }

    /// Raw times: vitexport takes median and percentiles of them.
    public struct Measurement: Codable, Sendable {
        public var verdict: Verdict
        public var loadMs: Double?
        /// The first inference after loading.
        public var coldMs: Double?
        public var timesMs: [Double] = []
        public var sustainedMs: Double?
        public var sustainedAfterS: Double?
        public var peakMemoryBytes: Int?
        public var warning = ""
        public var reason = ""

        enum CodingKeys: String, CodingKey {
            case verdict, warning, reason
            case loadMs = "load_ms"
            case coldMs = "cold_ms"
            case timesMs = "times_ms"
            case sustainedMs = "sustained_ms"
            case sustainedAfterS = "sustained_after_s"
            case peakMemoryBytes = "peak_memory_bytes"
        }

        public static func notRun(_ reason: String) -> Measurement { Measurement(verdict: .notRun, reason: reason) }
    }

    /// How many operations each device is to take, and what an accelerated session leaves to the CPU.
    public struct Placement: Codable, Sendable {
        public var nodes: [String: Int]
        public var fallback: [String]
    }

    enum CodingKeys: String, CodingKey {
        case device, cells
        case schemaVersion = "schema_version"
        case manifestSha256 = "manifest_sha256"
    }

    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(self)
    }
}
