import SwiftUI
import __MODULE__Exam

/// An app that runs the exam on the phone in your hand and hands over its result: see README.md beside this package.
@main
struct ExamApp: App {
    var body: some Scene {
        WindowGroup { ExamView() }
    }
}

struct ExamView: View {
    @State private var said = "Measures every variant of __MODULE__ on this device. Leave it alone until it is done."
    @State private var running = false
    @State private var written: URL?

    var body: some View {
        VStack(spacing: 24) {
            Text(said).multilineTextAlignment(.center)
            if running { ProgressView() }
            Button("Measure") { Task { await measure() } }.disabled(running)
            if let written { ShareLink("Send device-report.json", item: written) }
        }
        .padding()
    }

    private func measure() async {
        running = true
        defer { running = false }
        do {
            let report = try await Task.detached {
                try await Exam().run { step in Task { @MainActor in said = step } }
            }.value
            let file = FileManager.default.temporaryDirectory.appendingPathComponent("device-report.json")
            try report.json().write(to: file, options: .atomic)
            let passed = report.cells.filter { $0.parity.verdict == .passed }.count
            (said, written) = ("\(passed) of \(report.cells.count) passed.", file)
        } catch {
            said = error.localizedDescription
        }
    }
}
