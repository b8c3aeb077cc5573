// Compiled into the exam's module, for what Apple's Foundation has and this one has not: see CoreVideo.swift.
import Foundation

extension ProcessInfo {
    enum ThermalState { case nominal, fair, serious, critical }
    var thermalState: ThermalState { fatalError() }
    var isLowPowerModeEnabled: Bool { fatalError() }
    var isiOSAppOnMac: Bool { fatalError() }
}
typealias natural_t = UInt32
typealias integer_t = Int32
typealias mach_msg_type_number_t = UInt32
typealias task_flavor_t = UInt32
struct task_vm_info_data_t { var ledger_phys_footprint_peak: Int64 = 0 }
let TASK_VM_INFO: Int32 = 22
let KERN_SUCCESS: Int32 = 0
let mach_task_self_: UInt32 = 0
func task_info(
    _ task: UInt32, _ flavor: task_flavor_t, _ out: UnsafeMutablePointer<integer_t>,
    _ count: UnsafeMutablePointer<mach_msg_type_number_t>
) -> Int32 { fatalError() }
@discardableResult
func sysctlbyname(_ name: String, _ old: UnsafeMutableRawPointer?, _ size: UnsafeMutablePointer<Int>?, _ new: UnsafeMutableRawPointer?, _ newSize: Int) -> Int32 { fatalError() }
