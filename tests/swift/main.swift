// What test_coreml_swift.py asks the generated sources, compiled with them as one module: a JSON array of requests in the
// file that is named, an array of answers on standard output.
import Foundation

struct Request: Decodable {
    let verb: String
    let a: String?
    let b: String?
    let shape: [Int]?
    let spec: OutputSpec?
    let photo: String?
    let height: Int?
    let width: Int?
    let size: String?
    let out: String?
    let bundle: String?
    let scale: Float?
}

struct Reply: Encodable {
    var drift: Double?
    var snrDb: Double?
    var cosine: Double?
    var agreement: Double?
    var overlap: Double?
    var people: Double?
    var report: String?
}

func floats(_ path: String) throws -> [Float] {
    try Data(contentsOf: URL(fileURLWithPath: path)).withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
}

func compare(_ request: Request) throws -> Reply {
    let (shape, spec) = (request.shape!, request.spec!)
    let a = Tensor(shape: shape, values: try floats(request.a!))
    let b = Tensor(shape: shape, values: try floats(request.b!))
    var reply = Reply()
    reply.drift = Comparison.drift(a.values, b.values, spec.meaning)
    reply.snrDb = Comparison.snrDb(a.values, b.values, spec.meaning)
    reply.cosine = Comparison.cosine(a.values, b.values)
    reply.agreement = Comparison.agreement(a, b, spec)
    if let theirs = Comparison.personMask(a, spec), let ours = Comparison.personMask(b, spec) {
        reply.people = Overlap(Comparison.over(theirs), Comparison.over(ours)).iou
    }
    return reply
}

func preprocess(_ request: Request) throws -> Reply {
    let rgb = [UInt8](try Data(contentsOf: URL(fileURLWithPath: request.photo!)))
    let picture = Picture(size: Size(height: request.height!, width: request.width!), rgb: rgb)
    let made = InputSize(rawValue: request.size!)!.preprocessing.tensor(picture)
    try made.values.withUnsafeBytes { Data($0) }.write(to: URL(fileURLWithPath: request.out!))
    return Reply()
}

/// The report of a device whose answers are PyTorch's times `scale`.
func report(_ request: Request) throws -> Reply {
    let bundle = URL(fileURLWithPath: request.bundle!)
    let manifest = try JSONDecoder().decode(
        Manifest.self, from: Data(contentsOf: bundle.appendingPathComponent("manifest.json")))
    let rung = manifest.rungs[0]
    var cells: [DeviceReport.Cell] = []
    for variant in rung.variants {
        var judge = Judge(outputs: rung.outputs, variant: variant)
        for one in try GoldenCase.read(rung, in: bundle) {
            let scaled = one.outputs.mapValues { Tensor(shape: $0.shape, values: $0.values.map { $0 * request.scale! }) }
            judge.compare(scaled, to: one)
        }
        let latency = DeviceReport.Measurement(
            verdict: .passed, loadMs: 80, coldMs: 20, timesMs: (0..<30).map { 4 + Double($0) / 100 },
            peakMemoryBytes: 50_000_000)
        cells.append(
            DeviceReport.Cell(
                precision: variant.precision, provider: "cpu_and_ne", size: rung.size,
                parity: judge.parity(runtime: "Core ML"), latency: latency,
                placement: DeviceReport.Placement(nodes: ["Neural Engine": 7, "CPU": 1], fallback: ["gather (x)"])))
    }
    let device = DeviceReport.Device(
        name: "iPhone15,2", runtime: "Core ML, iOS 18.5", provider: "", software: false,
        facts: ["thermal state": "nominal"], needs: "")
    let made = DeviceReport(manifestSha256: request.a!, device: device, cells: cells)
    return Reply(report: String(decoding: try made.json(), as: UTF8.self))
}

let requests = try JSONDecoder().decode(
    [Request].self, from: Data(contentsOf: URL(fileURLWithPath: CommandLine.arguments[1])))
let replies = try requests.map { request in
    switch request.verb {
    case "compare": try compare(request)
    case "preprocess": try preprocess(request)
    default: try report(request)
    }
}
let encoder = JSONEncoder()
encoder.nonConformingFloatEncodingStrategy = .convertToString(positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
print(String(decoding: try encoder.encode(replies), as: UTF8.self))
