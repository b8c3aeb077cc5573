#if canImport(CoreML)
import Foundation

#if canImport(UIKit)
import UIKit
#endif

/// What runs this, and in what state.
enum ThisDevice {
    static func described() async -> DeviceReport.Device {
        var facts = [
            "os": "\(system) \(version)",
            "cores": String(ProcessInfo.processInfo.activeProcessorCount),
            "memory": "\(ProcessInfo.processInfo.physicalMemory / 1_048_576) MiB",
            "thermal state": thermalState,
            "low-power mode": ProcessInfo.processInfo.isLowPowerModeEnabled ? "on" : "off",
        ]
        facts["power"] = await power()
        #if DEBUG
        facts["build"] = "debug"
        #endif
        #if targetEnvironment(simulator)
        let (name, software, needs) = ("\(identifier) (Simulator)", true, "a device: Xcode's simulator ran it")
        #else
        let (name, software, needs) = (identifier, false, "")
        #endif
        return DeviceReport.Device(
            name: name, runtime: "Core ML, \(system) \(version)", provider: "", software: software, facts: facts,
            needs: needs)
    }

    /// Why times that were taken between `before` and now are to be taken with care; empty where they need not be.
    static func warning(before: String) -> String {
        var said: [String] = []
        if before != "nominal" || thermalState != "nominal" { said.append("thermal state \(before), then \(thermalState)") }
        if ProcessInfo.processInfo.isLowPowerModeEnabled { said.append("low-power mode is on") }
        return said.joined(separator: "; ")
    }

    static var thermalState: String {
        switch ProcessInfo.processInfo.thermalState {
        case .nominal: "nominal"
        case .fair: "fair"
        case .serious: "serious"
        case .critical: "critical"
        @unknown default: "unknown"
        }
    }

    /// The most memory that this process has had so far, as the system counts against its limit.
    static var peakMemoryBytes: Int? {
        var info = task_vm_info_data_t()
        var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
        let status = withUnsafeMutablePointer(to: &info) { pointer in
            pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
            }
        }
        return status == KERN_SUCCESS ? Int(info.ledger_phys_footprint_peak) : nil
    }

    private static var version: String {
        let version = ProcessInfo.processInfo.operatingSystemVersion
        let patch = version.patchVersion == 0 ? "" : ".\(version.patchVersion)"
        return "\(version.majorVersion).\(version.minorVersion)\(patch)"
    }

    private static var system: String {
        #if os(macOS)
        return "macOS"
        #else
        return ProcessInfo.processInfo.isiOSAppOnMac ? "iOS app on macOS" : "iOS"
        #endif
    }

    /// `iPhone15,2`, `Mac14,7`: what Apple calls the model, which a user's name for it is not.
    private static var identifier: String {
        if let simulated = ProcessInfo.processInfo.environment["SIMULATOR_MODEL_IDENTIFIER"] { return simulated }
        #if os(macOS)
        let key = "hw.model"
        #else
        let key = "hw.machine"
        #endif
        var size = 0
        sysctlbyname(key, nil, &size, nil, 0)
        var text = [CChar](repeating: 0, count: max(size, 1))
        sysctlbyname(key, &text, &size, nil, 0)
        return String(cString: text)
    }

    @MainActor
    private static func power() -> String? {
        #if os(iOS)
        UIDevice.current.isBatteryMonitoringEnabled = true
        return switch UIDevice.current.batteryState {
        case .charging, .full: "mains"
        case .unplugged: "battery"
        default: nil
        }
        #else
        return nil
        #endif
    }
}
#endif
