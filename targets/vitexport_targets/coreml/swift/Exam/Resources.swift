import Foundation
import __MODULE__

/// The exam that came with the export.
public enum ExamResources {
    public static func manifest() throws -> Manifest {
        try JSONDecoder().decode(Manifest.self, from: Resources.manifest())
    }

    /// The folder that the manifest's paths are relative to.
    public static func bundle() throws -> URL {
        guard let golden = Bundle.module.url(forResource: "golden", withExtension: nil) else {
            throw Failure.missing("golden")
        }
        return golden.deletingLastPathComponent()
    }

    public static func golden(_ rung: Manifest.Rung) throws -> [GoldenCase] {
        try GoldenCase.read(rung, in: bundle())
    }
}
