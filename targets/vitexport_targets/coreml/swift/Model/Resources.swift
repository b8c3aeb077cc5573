import Foundation

/// What came along with this package.
public enum Resources {
    /// `manifest.json` of the export, byte for byte: its SHA-256 is the export's name.
    public static func manifest() throws -> Data {
        guard let url = Bundle.module.url(forResource: "manifest", withExtension: "json") else {
            throw Failure.missing("manifest.json")
        }
        return try Data(contentsOf: url)
    }

    /// A compiled package where Xcode compiled it, else the package.
    static func model(_ name: String) throws -> URL {
        let stored = ["mlmodelc", "mlpackage"].lazy.compactMap { Bundle.module.url(forResource: name, withExtension: $0) }
        guard let url = stored.first else { throw Failure.missing("\(name).mlpackage") }
        return url
    }
}

/// Why this package cannot do what it was asked.
public enum Failure: LocalizedError, Equatable {
    /// A file that came with the export is not in the app.
    case missing(String)
    /// The model does not answer what it was exported with.
    case noOutput(String)
    case unreadable(String)

    public var errorDescription: String? {
        switch self {
        case .missing(let file): "'\(file)' is not in this app. See the resources in Package.swift."
        case .noOutput(let name): "The model answers no '\(name)' of the type that it was exported with. Export it again."
        case .unreadable(let what): "\(what) cannot be read."
        }
    }
}

/// What a model answered, by name: see `Outputs`.
public protocol Answer {
    func tensor(_ name: String) throws -> Tensor
    func text(_ name: String) throws -> String
    func probabilities(_ name: String) throws -> [String: Double]
}
